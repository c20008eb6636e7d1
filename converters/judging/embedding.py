"""Whether a variant's embedding is near enough to the fp32 model's: all variants share one reference.

The head gives each component the mean 0 and the standard deviation 1 on the calibration samples, so
differences are in standard deviations: of each component the root of their mean square over the held-out
samples. A shift by 0.1 moves no share of a normal distribution by more than 0.04 as an angle, which is less
than the materiality of drift (``docs/reference/drift.md``). So no device drifts because of its variant.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.errors import ConversionFailed

EMBEDDING_TOLERANCE = {"fp32": 1e-3}
"""Greatest difference by precision."""
REDUCED_EMBEDDING_TOLERANCE = 0.1
"""That of all other precisions."""


def check_embedding(given: NDArray[Any], wanted: NDArray[Any], precision: str) -> float:
    """Return the greatest difference of a component, if it passes.

    Args:
        given: Embedding of the variant, shape (N, K).
        wanted: That of the fp32 model.
        precision: Of the variant.

    Raises:
        ConversionFailed: The shapes differ, or a component differs too much.
    """
    if given.shape != wanted.shape:
        raise ConversionFailed(f"The embedding has the shape {given.shape}, the fp32 model's {wanted.shape}.")
    squares = np.square(given.astype(np.float64) - wanted.astype(np.float64))
    differences = np.sqrt(squares.mean(axis=0))
    worst = int(differences.argmax())
    tolerance = EMBEDDING_TOLERANCE.get(precision, REDUCED_EMBEDDING_TOLERANCE)
    if not differences[worst] <= tolerance:
        raise ConversionFailed(
            f"Component {worst} of the embedding differs from the fp32 model's by {differences[worst]:.3g}"
            f" standard deviations; {tolerance:g} is allowed.",
            remedy="Ask for fewer components, or another tensor.",
        )
    return float(differences[worst])
