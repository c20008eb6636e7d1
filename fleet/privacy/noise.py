"""The geometric mechanism: whole numbers of noise, so that counts hide whether any one inference is in them.

**Theory.** Two sets of inferences are *neighbours* if one has a single row more. What leaves a device is
ε-differentially private if no observation is more than e^ε times as probable of a set as of its neighbour
(Dwork, McSherry, Nissim and Smith 2006, "Calibrating noise to sensitivity in private data analysis"). If a
row changes counts by Δ in all, as the sum of the changes, then noise K on each count with

    P(K = k) = (1 - a) / (1 + a) · a^|k|,    a = exp(-ε / Δ)

makes them so: the two-sided geometric distribution (discrete Laplace), which is the best that there is for a
count, whatever its reader wants to know (Ghosh, Roughgarden and Sundararajan 2009, "Universally
utility-maximizing privacy mechanisms"). Being whole, it has none of the gaps by which the floating-point
Laplace mechanism gives counts away (Mironov 2012, "On significance of the least significant bits for
differential privacy"). Its variance is 2a / (1 - a)².

**Sampling.** K is the difference of two geometric numbers G, P(G = g) = (1 - a) a^g. The binary digits of
such a number are independent, digit i being one with probability a^(2^i) / (1 + a^(2^i)); so each digit is
drawn by comparing 64 unpredictable bits with a threshold. Digits that are ones less than once in 2^64 are
left out. Thresholds are rounded to some 2^-53, so what holds is (ε, δ) with δ below 1e-11 · e^ε for a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

LEAST_EPSILON = 0.001
MOST_EPSILON = 100.0
_RAREST = 64 * math.log(2.0)

Draw = Callable[[int], bytes]
"""Returns so many unpredictable bytes; never the same ones for two counts."""


def geometric_noise(count: int, scale: float, draw: Draw) -> NDArray[np.int64]:
    """Return noise for counts, shape (count,).

    Args:
        count: For how many.
        scale: Sensitivity over epsilon.
        draw: Where chance comes from.
    """
    return _geometric(count, scale, draw) - _geometric(count, scale, draw)


def variance(scale: float) -> float:
    """Return the variance of the noise on a count; `scale` as for `geometric_noise`."""
    a = math.exp(-1.0 / scale)
    return 2.0 * a / math.expm1(-1.0 / scale) ** 2


def _geometric(count: int, scale: float, draw: Draw) -> NDArray[np.int64]:
    values = np.zeros(count, dtype=np.int64)
    place = 0
    while 2**place / scale < _RAREST:
        threshold = np.uint64(2.0**64 / (1.0 + math.exp(2**place / scale)))
        bits = np.frombuffer(draw(8 * count), dtype="<u8")
        values += (bits < threshold).astype(np.int64) << place
        place += 1
    return values
