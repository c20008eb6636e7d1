"""Distances between two histograms of equal layout.

All three take counts, not shares. With p and q the shares per cell:

==================  =============================================  =========================================
distance            formula                                        source
==================  =============================================  =========================================
Kolmogorov-Smirnov  max_j | sum_{i<=j} p_i - sum_{i<=j} q_i |      Kolmogorov 1933, Smirnov 1939; over cells
                                                                   it is at most the distance of the samples
total variation     1/2 sum_i | p_i - q_i |                        the largest difference that any set of
                                                                   cells can have
PSI                 sum_i (p_i - q_i) ln(p_i / q_i)                Jeffreys' divergence (1946); as "population
                                                                   stability index", Siddiqi 2006
==================  =============================================  =========================================

Only the first raises alarms (`fleet.drift.alarms`); the others are shown beside it. PSI has no threshold
here: its rules of thumb ignore the sample size, and without any drift ten cells at n = 100 exceed 0.1 in
about two windows of five.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.errors import InvalidMessage

PSI_SMOOTHING = 0.5
"""Added to every cell of both sides (Jeffreys' prior): an empty cell is rare rather than impossible."""


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


def _shares(
    left: Sequence[int], right: Sequence[int], smoothing: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both sides as shares; all zero where either side is empty."""
    if len(left) != len(right):
        raise InvalidMessage(f"Counts of {len(left)} and {len(right)} cells cannot be compared.")
    if min(left, default=0) < 0 or min(right, default=0) < 0:
        raise InvalidMessage("A count is negative.")
    p, q = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if p.sum() == 0.0 or q.sum() == 0.0:
        return np.zeros_like(p), np.zeros_like(q)
    return (p + smoothing) / (p + smoothing).sum(), (q + smoothing) / (q + smoothing).sum()
