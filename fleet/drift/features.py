"""Which features of a prediction are profiled, and how each is computed.

The hub computes the reference and the device the counts with this one function, so the two sides of a
comparison cannot differ in meaning.

======================  ===========  ===============================================================
name                    kind         meaning
======================  ===========  ===============================================================
``output.class``        categorical  number of the most probable class
``output.confidence``   numeric      probability of that class
``input.mean``          numeric      mean over the elements of one input (brightness, for an image)
``input.contrast``      numeric      standard deviation over the elements of one input
======================  ===========  ===============================================================
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
INPUT_MEAN = "input.mean"
INPUT_CONTRAST = "input.contrast"

CONFIDENCE_EDGES = tuple(i / 20 for i in range(21))
"""Confidence alone has fixed edges: gates compare the confidence of one version with another's."""


def extract(
    inputs: NDArray[np.floating], probabilities: NDArray[np.floating]
) -> dict[str, NDArray[np.generic]]:
    """Compute every feature for a block of predictions.

    Args:
        inputs: What the model was given, shape (N, …).
        probabilities: What it answered, shape (N, C).

    Returns:
        For each feature an array of shape (N,).
    """
    flat = np.asarray(inputs, dtype=np.float64).reshape(len(inputs), -1)
    return {
        OUTPUT_CLASS: probabilities.argmax(axis=1),
        OUTPUT_CONFIDENCE: probabilities.max(axis=1).astype(np.float64),
        INPUT_MEAN: flat.mean(axis=1),
        INPUT_CONTRAST: flat.std(axis=1),
    }


def build_reference(inputs: NDArray[np.floating], probabilities: NDArray[np.floating]) -> ReferenceProfile:
    """Build a version's reference profile from samples that its training did not see.

    Args:
        inputs: Shape (N, …).
        probabilities: The model's answers, shape (N, C).
    """
    values = extract(inputs, probabilities)
    return ReferenceProfile(
        features=tuple(_reference(name, column, probabilities.shape[1]) for name, column in values.items())
    )


def count_block(
    reference: ReferenceProfile, inputs: NDArray[np.floating], probabilities: NDArray[np.floating]
) -> Profile:
    """Count a block of predictions into the reference's cells.

    Args:
        reference: The version's profile.
        inputs: Shape (N, …).
        probabilities: Shape (N, C).
    """
    values = extract(inputs, probabilities)
    return {f.name: count(f, values[f.name]) for f in reference.features if f.name in values}


def _reference(name: str, values: NDArray[np.generic], classes: int) -> FeatureReference:
    if name == OUTPUT_CLASS:
        return categorical_reference(name, values.astype(np.int64), classes)
    edges = CONFIDENCE_EDGES if name == OUTPUT_CONFIDENCE else None
    return numeric_reference(name, values.astype(np.float64), edges=edges)
