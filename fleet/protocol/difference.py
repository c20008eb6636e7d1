"""How far answers are from those expected: by what golden outputs and parity are judged, on hub and device.

Each element of an answer is measured by its own scale, the greatest absolute answer expected of that element
over all samples, or 1 if that is less. So a probability is compared as it is, a temperature in parts of the
highest one, and neither hides what happens to the other in a model that gives both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def element_scales(expected: NDArray[Any]) -> NDArray[np.float64]:
    """Return the scale of each element of an answer.

    Args:
        expected: Answers, shape (N, …).

    Returns:
        Shape (E,), E being the elements of one answer.
    """
    rows = np.abs(np.asarray(expected, dtype=np.float64).reshape(len(expected), -1))
    return np.asarray(np.maximum(1.0, rows.max(axis=0)))


def scaled_differences(answers: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    """Return the greatest difference of each answer, its elements in proportion to their scales.

    Args:
        answers: Shape (N, …).
        expected: Of the same shape.

    Returns:
        Shape (N,); not a number where an answer has an element that is none.
    """
    rows = np.asarray(expected, dtype=np.float64).reshape(len(expected), -1)
    differences = np.abs(np.asarray(answers, dtype=np.float64).reshape(len(answers), -1) - rows)
    return np.asarray((differences / element_scales(expected)).max(axis=1))
