"""Distances between two histograms of equal layout.

All take counts, not shares, of m and n values. With p and q the shares per cell, P and Q their running sums,
and h the middle between p and q:

==================  =============================================  =========================================
distance            formula                                        source
==================  =============================================  =========================================
Kolmogorov-Smirnov  max_j | P_j - Q_j |                            Kolmogorov 1933, Smirnov 1939; over cells
                                                                   it is at most the distance of the samples
total variation     1/2 sum_i | p_i - q_i |                        the largest difference that any set of
                                                                   cells can have
Jensen-Shannon      sqrt( (KL(p, h) + KL(q, h)) / 2 )              Lin 1991; the root is a metric, Endres and
                    with KL(p, h) = sum_i p_i log2(p_i / h_i)      Schindelin 2003
PSI                 sum_i (p_i - q_i) ln(p_i / q_i)                Jeffreys' divergence (1946); as "population
                                                                   stability index", Siddiqi 2006
chi-square          sum_i (a_i sqrt(n/m) - b_i sqrt(m/n))^2        Pearson 1900; of two samples of unequal
                          / (a_i + b_i)                            size, Press et al., "Numerical Recipes"
Anderson-Darling    (A^2 - 1) / sigma with A^2 over ties           Scholz and Stephens 1987, formula 7, with
                                                                   the limit of sigma for two samples
Wasserstein         integral of | P(x) - Q(x) |                    `fleet.drift.transport`
==================  =============================================  =========================================

The first four are sizes of a difference, the next two grow with the samples: chi-square is near its degrees
of freedom, and Anderson-Darling near 0 (above 2 in about one case of twenty), where nothing differs. None of
them raises alarms (`fleet.drift.alarms`), all are shown. PSI has no threshold here: its rules of thumb ignore
the sample size, and without any drift ten cells at n = 100 exceed 0.1 in about two windows of five.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.errors import InvalidMessage

PSI_SMOOTHING = 0.5
"""Added to every cell of both sides (Jeffreys' prior): an empty cell is rare rather than impossible."""

_ANDERSON_DARLING_SIGMA = math.sqrt(2.0 * (math.pi**2 - 9.0) / 3.0)


def ks_distance(left: Sequence[int], right: Sequence[int]) -> float:
    """Return the Kolmogorov-Smirnov distance, 0 to 1; 0 if either side is empty.

    Args:
        left: Counts per cell, cells in ascending order.
        right: Likewise, in the same layout.

    Raises:
        InvalidMessage: The layouts differ, or a count is negative.
    """
    p, q = _shares(left, right, 0.0)
    return float(np.abs(np.cumsum(p) - np.cumsum(q)).max(initial=0.0))


def total_variation(left: Sequence[int], right: Sequence[int]) -> float:
    """Return the total variation distance, 0 to 1; 0 if either side is empty.

    Args:
        left: Counts per cell.
        right: Likewise, in the same layout.

    Raises:
        InvalidMessage: The layouts differ, or a count is negative.
    """
    p, q = _shares(left, right, 0.0)
    return float(np.abs(p - q).sum() / 2.0)


def psi(left: Sequence[int], right: Sequence[int]) -> float:
    """Return the population stability index, smoothed by `PSI_SMOOTHING`; 0 if either side is empty.

    Args:
        left: Counts per cell.
        right: Likewise, in the same layout.

    Raises:
        InvalidMessage: The layouts differ, or a count is negative.
    """
    p, q = _shares(left, right, PSI_SMOOTHING)
    return float(((p - q) * np.log(p / q)).sum()) if p.any() else 0.0


def jensen_shannon(left: Sequence[int], right: Sequence[int]) -> float:
    """Return the Jensen-Shannon distance to base 2, 0 to 1; 0 if either side is empty.

    Args:
        left: Counts per cell.
        right: Likewise, in the same layout.

    Raises:
        InvalidMessage: The layouts differ, or a count is negative.
    """
    p, q = _shares(left, right, 0.0)
    middle = (p + q) / 2.0
    return math.sqrt(max(0.0, _relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2.0)


def chi_square(left: Sequence[int], right: Sequence[int]) -> tuple[float, int]:
    """Return the chi-square statistic of two samples, and its degrees of freedom; 0 if either side is empty.

    Args:
        left: Counts per cell; cells that are empty on both sides do not count.
        right: Likewise, in the same layout.

    Raises:
        InvalidMessage: The layouts differ, or a count is negative.
    """
    a, b = _counts(left, right)
    m, n, both = a.sum(), b.sum(), a + b
    if m == 0.0 or n == 0.0:
        return 0.0, 0
    a, b, both = a[both > 0], b[both > 0], both[both > 0]
    return float((np.square(a * math.sqrt(n / m) - b * math.sqrt(m / n)) / both).sum()), len(both) - 1


def anderson_darling(left: Sequence[int], right: Sequence[int]) -> float:
    """Return the standardised Anderson-Darling statistic of two samples; 0 if either side is empty.

    Args:
        left: Counts per cell, cells in ascending order: values of one cell are tied.
        right: Likewise, in the same layout.

    Raises:
        InvalidMessage: The layouts differ, or a count is negative.
    """
    a, b = _counts(left, right)
    tied = a + b
    total = tied.sum()
    if a.sum() == 0.0 or b.sum() == 0.0:
        return 0.0
    a, b, tied = a[tied > 0], b[tied > 0], tied[tied > 0]
    if len(tied) == 1:
        return 0.0
    below = tied.cumsum() - tied / 2.0
    weight = tied / total / (below * (total - below) - total * tied / 4.0)
    squared = sum(
        (weight * np.square(total * (side.cumsum() - side / 2.0) - side.sum() * below)).sum() / side.sum()
        for side in (a, b)
    )
    return float(((total - 1.0) / total * squared - 1.0) / _ANDERSON_DARLING_SIGMA)


def _relative_entropy(p: NDArray[np.float64], of: NDArray[np.float64]) -> float:
    held = p > 0.0
    return float((p[held] * np.log2(p[held] / of[held])).sum())


def _shares(
    left: Sequence[int], right: Sequence[int], smoothing: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both sides as shares; all zero where either side is empty."""
    p, q = _counts(left, right)
    if p.sum() == 0.0 or q.sum() == 0.0:
        return np.zeros_like(p), np.zeros_like(q)
    return (p + smoothing) / (p + smoothing).sum(), (q + smoothing) / (q + smoothing).sum()


def _counts(left: Sequence[int], right: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if len(left) != len(right):
        raise InvalidMessage(f"Counts of {len(left)} and {len(right)} cells cannot be compared.")
    if min(left, default=0) < 0 or min(right, default=0) < 0:
        raise InvalidMessage("A count is negative.")
    return np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
