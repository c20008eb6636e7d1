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
======================  ===========  ===============  =================================================

A classifier whose answers are not probabilities (a margin classifier) has no confidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from fleet.drift.allowance import calibrated
from fleet.drift.profile import (
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
INPUT_MEAN = "input.mean"
INPUT_CONTRAST = "input.contrast"

CONFIDENCE_EDGES = tuple(i / 20 for i in range(21))
"""Confidence alone has fixed edges: gates compare the confidence of one version with another's."""

FEATURES_OF_TASK: dict[str, tuple[str, ...]] = {
    "classification": (OUTPUT_CLASS, OUTPUT_CONFIDENCE, INPUT_MEAN, INPUT_CONTRAST),
    "regression": (OUTPUT_VALUE, INPUT_MEAN, INPUT_CONTRAST),
    "anomaly": (OUTPUT_SCORE, INPUT_MEAN, INPUT_CONTRAST),
    "reconstruction": (OUTPUT_ERROR, INPUT_MEAN, INPUT_CONTRAST),
    "clustering": (OUTPUT_CLUSTER, OUTPUT_DISTANCE, INPUT_MEAN, INPUT_CONTRAST),
}
"""What is profiled, by `fleet.protocol.manifest.Task`."""

_PROBABILITY_TOLERANCE = 1e-3
"""How far the sum of a row may be from 1, in low precision, for it to be a row of probabilities."""

FEATURES_OF_INPUTS = frozenset({INPUT_MEAN, INPUT_CONTRAST, OUTPUT_ERROR})
"""Those that read every number of the inputs, so that large inputs make them expensive."""

Rows = NDArray[np.float64]


def extract(
    names: Iterable[str], inputs: NDArray[np.floating], outputs: NDArray[np.floating]
) -> dict[str, NDArray[np.generic]]:
    """Compute features for a block of predictions.

    Args:
        names: Which; those that this release does not know are left out.
        inputs: The model's numbers, shape (N, …).
        outputs: Its first output, shape (N, …).

    Returns:
        For each feature an array of shape (N,).
    """
    given = np.asarray(inputs, dtype=np.float64).reshape(len(inputs), -1)
    answered = np.asarray(outputs, dtype=np.float64).reshape(len(outputs), -1)
    return {name: _COMPUTE[name](given, answered) for name in names if name in _COMPUTE}


def build_reference(
    task: str, inputs: NDArray[np.floating], outputs: NDArray[np.floating]
) -> ReferenceProfile:
    """Build a version's reference profile from samples that its training did not see.

    A feature that no sample has, such as the mean of an input of text alone, is left out.

    Args:
        task: What the model is for, see `fleet.protocol.manifest.Task`.
        inputs: Shape (N, …).
        outputs: The model's answers, shape (N, …).
    """
    names = FEATURES_OF_TASK[task]
    if OUTPUT_CONFIDENCE in names and not _are_probabilities(outputs):
        names = tuple(name for name in names if name != OUTPUT_CONFIDENCE)
    categories = int(np.prod(outputs.shape[1:]))
    values = extract(names, inputs, outputs)
    present = {name: column for name, column in values.items() if not np.isnan(column.astype(float)).all()}
    profile = ReferenceProfile(
        tuple(_reference(name, column, categories) for name, column in present.items())
    )
    return calibrated(profile)


def count_block(
    reference: ReferenceProfile, inputs: NDArray[np.floating], outputs: NDArray[np.floating]
) -> Profile:
    """Count a block of predictions into the reference's cells.

    Args:
        reference: The version's profile.
        inputs: Shape (N, …).
        outputs: Shape (N, …).
    """
    values = extract((feature.name for feature in reference.features), inputs, outputs)
    return {f.name: count(f, values[f.name]) for f in reference.features if f.name in values}


def _are_probabilities(outputs: NDArray[np.floating]) -> bool:
    sums = outputs.reshape(len(outputs), -1).sum(axis=1)
    return bool((outputs >= 0).all() and (np.abs(sums - 1.0) <= _PROBABILITY_TOLERANCE).all())


def _reference(name: str, values: NDArray[np.generic], categories: int) -> FeatureReference:
    if name in {OUTPUT_CLASS, OUTPUT_CLUSTER}:
        return categorical_reference(name, values.astype(np.int64), categories)
    edges = CONFIDENCE_EDGES if name == OUTPUT_CONFIDENCE else None
    return numeric_reference(name, values.astype(np.float64), edges=edges)


def _mean(given: Rows, _: Rows) -> Rows:
    if given.shape[1] and np.isfinite(sums := given.sum(axis=1)).all():  # nothing is missing, as mostly
        complete: Rows = sums / given.shape[1]
        return complete
    present = ~np.isnan(given)
    counts = present.sum(axis=1)
    sums = np.where(present, given, 0.0).sum(axis=1)
    means: Rows = np.divide(sums, counts, out=np.full(len(given), np.nan), where=counts > 0)
    return means


def _contrast(given: Rows, answered: Rows) -> Rows:
    deviations = given - _mean(given, answered)[:, None]
    return np.sqrt(_mean(np.square(deviations, out=deviations), answered))


_COMPUTE: dict[str, Callable[[Rows, Rows], NDArray[np.generic]]] = {
    OUTPUT_CLASS: lambda _, answered: answered.argmax(axis=1),
    OUTPUT_CONFIDENCE: lambda _, answered: answered.max(axis=1),
    OUTPUT_CLUSTER: lambda _, answered: answered.argmin(axis=1),
    OUTPUT_DISTANCE: lambda _, answered: answered.min(axis=1),
    OUTPUT_VALUE: lambda _, answered: answered.mean(axis=1),
    OUTPUT_SCORE: lambda _, answered: answered[:, 0],
    OUTPUT_ERROR: lambda given, answered: np.square(given - answered).mean(axis=1),
    INPUT_MEAN: _mean,
    INPUT_CONTRAST: _contrast,
}
