"""How far answers may differ on other processors and releases of a runtime.

They differ in the order of additions and in fused operators. A dot product of n terms, computed in any order,
is the exact dot product for weights that are changed by at most γ = n·u / (1 - n·u), relatively, u being the
unit roundoff (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 3.1). So the
constants of the graph are changed by random amounts, again and again, and the greatest change of the answers
is measured.

float32, u = 2⁻²⁴
    The amounts go up to `REACH`·γ. In an int8 model products of integers are exact everywhere (see
    `converters.targets.onnx_int8`), but a value close to the border of two quantization steps may fall to the
    other side; whatever a real difference of γ could push over a border is then pushed in most draws.
float16, u = 2⁻¹¹
    Where onnxruntime has no float16 kernels, as on x86, it computes in float32 and rounds only what is
    stored; elsewhere every sum is rounded. n·u is of no use then, it soon exceeds 1: the amounts go up to
    √n·u, as far as errors add up that are independent and have mean zero (Higham and Mary, "A new approach to
    probabilistic rounding error analysis", SIAM J. Sci. Comput. 41, 2019). The rounding of the answer itself
    comes on top.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.difference import scaled_differences
from fleet.protocol.errors import ConversionFailed

FLOAT32_ROUNDOFF = 2.0**-24
FLOAT16_ROUNDOFF = 2.0**-11
REACH = 16.0
_EXACT_BELOW = {"float16": 2.0**11, "float32": 2.0**24}
"""Whole numbers below are exact, and so are their sums (IEEE 754)."""

FEWEST_TERMS = 4
"""What is not summed is scaled or moved, in a few steps that each round."""


def noisy(exact: NDArray[Any], terms: int, random: np.random.RandomState) -> NDArray[Any]:
    """Return constants changed at random, each relatively, as the head of this file says.

    Args:
        exact: Constants in float32 or float16.
        terms: Number of terms of the longest sum that they take part in, `FEWEST_TERMS` or more.
        random: Where the amounts are drawn from.
    """
    whole = bool((exact == np.rint(exact)).all())
    if whole and float(np.abs(exact.astype(np.float64)).sum()) < _EXACT_BELOW[exact.dtype.name]:
        return exact  # their sums are the same in any order; often they are indices, not weights
    if exact.dtype == np.float16:
        amount = math.sqrt(terms) * FLOAT16_ROUNDOFF
    else:
        amount = REACH * terms * FLOAT32_ROUNDOFF / (1.0 - terms * FLOAT32_ROUNDOFF)
    changed = exact * random.uniform(1.0 - amount, 1.0 + amount, exact.shape)
    largest = np.finfo(exact.dtype).max
    return np.clip(changed, -largest, largest).astype(exact.dtype) if np.isfinite(exact).all() else exact


def greatest_change(outputs: NDArray[np.float64], changed: Iterable[NDArray[Any]]) -> float:
    """Return how far the answers of changed models are from the model's own, see `scaled_differences`.

    Args:
        outputs: The model's answers.
        changed: Those of the others, each of the same shape.

    Raises:
        ConversionFailed: One of them answers with values that are not finite.
    """
    # Python's max would pass over what is not a number.
    greatest = float(np.max([scaled_differences(answers, outputs) for answers in changed]))
    if not np.isfinite(greatest):
        raise ConversionFailed("The model answers golden inputs with values that are not finite.")
    return greatest
