"""Which features of a prediction are profiled, and how each is computed.

The hub computes the reference and the device the counts with this one function, so the two sides of a
comparison cannot differ in meaning.

======================  ===========  ===============  =================================================
name                    kind         task             meaning
======================  ===========  ===============  =================================================
``output.class``        categorical  classification   number of the most probable class
``output.confidence``   numeric      classification   probability of that class
``output.cluster``      categorical  clustering       number of the nearest centre
``output.distance``     numeric      clustering       distance to it
``output.value``        numeric      regression       mean over the elements of one answer
``output.score``        numeric      anomaly          the score
``output.error``        numeric      reconstruction   mean squared difference between answer and input
``input.mean``          numeric      all              mean over the numbers of one input that are present
``input.contrast``      numeric      all              standard deviation over them
``input.energy``        numeric      all              mean square of them, of images and sequences
``input.sharpness``     numeric      all              how much neighbours differ, likewise
``input.0`` …           numeric      all              each column of a small table
``embedding.0`` …       numeric      all              what a layer of the model makes of the input
======================  ===========  ===============  =================================================

What images, sequences and tables are, and how each of these is computed, stands in `fleet.drift.inputs`. A
classifier whose answers are not probabilities (a margin classifier) has no confidence. Only a model that was
given a head for it has an embedding, see `fleet.drift.embedding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.drift.allowance import calibrated
from fleet.drift.embedding import component_feature, component_of
from fleet.drift.inputs import (
    AXES_OF_LAYOUT,
    INPUT_CONTRAST,
    INPUT_ENERGY,
    INPUT_MEAN,
    INPUT_SHARPNESS,
    Given,
    Rows,
    column_of,
    features_of_layout,
    layout_of,
)
from fleet.drift.profile import (
    DEFAULT_BINS,
    FeatureReference,
    Profile,
    ReferenceProfile,
    categorical_reference,
    count,
    numeric_reference,
)

OUTPUT_CLASS = "output.class"
OUTPUT_CONFIDENCE = "output.confidence"
OUTPUT_CLUSTER = "output.cluster"
OUTPUT_DISTANCE = "output.distance"
OUTPUT_VALUE = "output.value"
OUTPUT_SCORE = "output.score"
OUTPUT_ERROR = "output.error"

CONFIDENCE_EDGES = tuple(i / 20 for i in range(21))
"""Confidence alone has fixed edges: gates compare the confidence of one version with another's."""

FEATURES_OF_TASK: dict[str, tuple[str, ...]] = {
    "classification": (OUTPUT_CLASS, OUTPUT_CONFIDENCE),
    "regression": (OUTPUT_VALUE,),
    "anomaly": (OUTPUT_SCORE,),
    "reconstruction": (OUTPUT_ERROR,),
    "clustering": (OUTPUT_CLUSTER, OUTPUT_DISTANCE),
}
"""What is profiled of the output, by `fleet.protocol.manifest.Task`."""

_PROBABILITY_TOLERANCE = 1e-3
"""How far the sum of a row may be from 1, in low precision, for it to be a row of probabilities."""


def reads_inputs(name: str) -> bool:
    """Tell whether a feature reads every number of the inputs, so that large inputs make it expensive."""
    return name.startswith("input.") or name == OUTPUT_ERROR


def is_known(name: str, task: str) -> bool:
    """Tell whether this release can compute a feature for a model of a task."""
    if name.startswith("input."):
        return name in _COMPUTE or column_of(name) is not None
    return name in FEATURES_OF_TASK[task] or component_of(name) is not None


def extract(
    names: Iterable[str],
    inputs: NDArray[np.floating],
    outputs: NDArray[np.floating],
    axes: tuple[int, ...] = (),
    embedding: NDArray[np.floating] | None = None,
) -> dict[str, NDArray[np.generic]]:
    """Compute features for a block of predictions.

    Args:
        names: Which; those that this release does not know are left out.
        inputs: The model's numbers, shape (N, …).
        outputs: Its first output, shape (N, …).
        axes: Of the inputs, along which neighbours are compared.
        embedding: What the model's head gave, shape (N, K); None of a model that has none.

    Returns:
        For each feature an array of shape (N,).
    """
    given = Given(inputs, axes)
    answered = np.asarray(outputs, dtype=np.float64).reshape(len(outputs), -1)
    values: dict[str, NDArray[np.generic]] = {}
    for name in names:
        if name in _COMPUTE:
            values[name] = _COMPUTE[name](given, answered)
        elif (column := column_of(name)) is not None:
            values[name] = given.column(column)
        elif embedding is not None and (component := component_of(name)) is not None:
            values[name] = np.asarray(embedding[:, component], dtype=np.float64)
    return values


def build_reference(
    task: str,
    inputs: NDArray[np.floating],
    outputs: NDArray[np.floating],
    *,
    layout: str = "",
    columns: Sequence[str] = (),
    embedding: NDArray[np.floating] | None = None,
) -> ReferenceProfile:
    """Build a version's reference profile from samples that its training did not see.

    A feature that no sample has, such as the mean of an input of text alone, is left out.

    Args:
        task: What the model is for, see `fleet.protocol.manifest.Task`.
        inputs: Shape (N, …).
        outputs: The model's answers, shape (N, …).
        layout: What the inputs are, as the manifest declares it; empty if it does not.
        columns: Names of the inputs' columns; empty where they have none.
        embedding: What the model's head gives, shape (N, K); None of a model that has none.
    """
    known = layout_of(layout, inputs.shape[1:])
    axes = AXES_OF_LAYOUT.get(known, ())
    names = (*FEATURES_OF_TASK[task], *features_of_layout(known, inputs.shape[1:], columns))
    if OUTPUT_CONFIDENCE in names and not _are_probabilities(outputs):
        names = tuple(name for name in names if name != OUTPUT_CONFIDENCE)
    if embedding is not None:
        names = (*names, *map(component_feature, range(embedding.shape[1])))
    categories = int(np.prod(outputs.shape[1:]))
    values = extract(names, inputs, outputs, axes, embedding)
    present = {name: column for name, column in values.items() if not np.isnan(column.astype(float)).all()}
    features = (_reference(name, column, categories) for name, column in present.items())
    return calibrated(
        ReferenceProfile(
            tuple(
                msgspec.structs.replace(feature, axes=axes) if feature.name == INPUT_SHARPNESS else feature
                for feature in features
            )
        )
    )


def count_block(
    reference: ReferenceProfile,
    inputs: NDArray[np.floating],
    outputs: NDArray[np.floating],
    embedding: NDArray[np.floating] | None = None,
) -> Profile:
    """Count a block of predictions into the reference's cells.

    Args:
        reference: The version's profile.
        inputs: Shape (N, …).
        outputs: Shape (N, …).
        embedding: Shape (N, K); None where there is none, which counts nothing.
    """
    axes = next((feature.axes for feature in reference.features if feature.axes), ())
    values = extract((feature.name for feature in reference.features), inputs, outputs, axes, embedding)
    return {f.name: count(f, values[f.name]) for f in reference.features if f.name in values}


def _are_probabilities(outputs: NDArray[np.floating]) -> bool:
    sums = outputs.reshape(len(outputs), -1).sum(axis=1)
    return bool((outputs >= 0).all() and (np.abs(sums - 1.0) <= _PROBABILITY_TOLERANCE).all())


def _reference(name: str, values: NDArray[np.generic], categories: int) -> FeatureReference:
    if name in {OUTPUT_CLASS, OUTPUT_CLUSTER}:
        return categorical_reference(name, values.astype(np.int64), categories)
    numbers = values.astype(np.float64)
    edges = CONFIDENCE_EDGES if name == OUTPUT_CONFIDENCE else None
    if column_of(name) is not None:
        edges = _edges_of_few(numbers)
    return numeric_reference(name, numbers, edges=edges)


def _edges_of_few(numbers: Rows) -> tuple[float, ...] | None:
    """Return edges that give each value of a column its bin, if it has but few; else None.

    Quantiles of a switch, which is 0 or 1, are the edges of one bin that holds both.
    """
    values = np.unique(numbers[~np.isnan(numbers)])
    if len(values) > DEFAULT_BINS or not np.isfinite(values).all():
        return None
    return (*values.tolist(), float(np.nextafter(values[-1], np.inf)))


_COMPUTE: dict[str, Callable[[Given, Rows], NDArray[np.generic]]] = {
    OUTPUT_CLASS: lambda _, answered: answered.argmax(axis=1),
    OUTPUT_CONFIDENCE: lambda _, answered: answered.max(axis=1),
    OUTPUT_CLUSTER: lambda _, answered: answered.argmin(axis=1),
    OUTPUT_DISTANCE: lambda _, answered: answered.min(axis=1),
    OUTPUT_VALUE: lambda _, answered: answered.mean(axis=1),
    OUTPUT_SCORE: lambda _, answered: answered[:, 0],
    OUTPUT_ERROR: lambda given, answered: np.square(given.rows - answered).mean(axis=1),
    INPUT_MEAN: lambda given, _: given.mean,
    INPUT_CONTRAST: lambda given, _: given.contrast,
    INPUT_ENERGY: lambda given, _: given.energy,
    INPUT_SHARPNESS: lambda given, _: given.sharpness,
}
