"""The Wasserstein distance from counts: how far values moved, in units of the reference's standard deviation.

    W = integral of | P(x) - Q(x) | dx          P and Q: the two distribution functions

(Vallender 1974 for this form.) Within a bin from l to r the integral of P is known exactly from the share of
values below l, the share p of values in the bin, and their mean position u (0 at l, 1 at r), which the
offsets of `fleet.drift.profile` give:

    integral of P from l to r = (r - l) (P(l) + p (1 - u))

So is that of P - Q, and with it that of | P - Q | wherever the sign does not change within a bin. To know
where it does, the values of a side are taken to be spread evenly over the widest part of the bin that begins
or ends with it and has their mean in its middle. Below and above the edges positions are measured in units of
the range of all edges, and only how far the two sides are out there counts.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fleet.drift.cells import OFFSET_UNITS
from fleet.drift.profile import FeatureCounts, FeatureReference

Side = FeatureReference | FeatureCounts


def wasserstein(reference: FeatureReference, counts: FeatureCounts) -> float | None:
    """Return the Wasserstein distance of counts to the reference, in its standard deviations.

    Args:
        reference: Of a numeric feature.
        counts: In its layout.

    Returns:
        None if it cannot be said: for categories, without offsets, if either side has no values, and if the
        reference does not vary.
    """
    if reference.edges is None or not reference.deviation:
        return None
    distance = moved(reference.edges, reference, counts)
    return None if distance is None else distance / reference.deviation


def moved(edges: tuple[float, ...], left: Side, right: Side) -> float | None:
    """Return the Wasserstein distance between two sides in the layout of the edges, in their unit.

    Args:
        edges: Bin edges, ascending.
        left: Counts or a reference.
        right: Likewise.

    Returns:
        None without offsets or values on both sides.
    """
    if any(len(side.offsets) != len(edges) + 1 or not any(side.cells) for side in (left, right)):
        return None
    (p, at_p), (q, at_q) = _shares(left), _shares(right)
    outside = np.abs(p * at_p - q * at_q)[[0, -1]].sum() * (edges[-1] - edges[0])
    inside = _between(np.cumsum(p - q)[:-2], (p[1:-1], at_p[1:-1]), (q[1:-1], at_q[1:-1]))
    distance = float(outside + (inside * np.diff(edges)).sum())
    return distance if math.isfinite(distance) else None


_Bins = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Shares and mean positions, both of shape (bins,)."""


def _between(before: NDArray[np.float64], left: _Bins, right: _Bins) -> NDArray[np.float64]:
    """Return the integral of | P - Q | over each bin, in its width.

    Args:
        before: P - Q where the bins begin, shape (bins,).
        left: Of P.
        right: Of Q.
    """
    spans = [(np.maximum(0.0, 2.0 * at - 1.0), np.minimum(1.0, 2.0 * at)) for _, at in (left, right)]
    ends = np.broadcast_to(np.array([[0.0], [1.0]]), (2, len(before)))
    knots = np.sort(np.concatenate([ends, *spans]), axis=0)  # between two of them P - Q is a straight line
    height = before + sum(
        sign * share * np.clip((knots - start) / (end - start), 0.0, 1.0)
        for sign, (share, _), (start, end) in zip((1.0, -1.0), (left, right), spans, strict=True)
    )
    here, there = height[:-1], height[1:]
    apart = np.abs(here) + np.abs(there)
    crossing = here * there < 0.0
    line = np.divide(np.square(here) + np.square(there), 2.0 * apart, out=apart / 2.0, where=crossing)
    area: NDArray[np.float64] = (line * np.diff(knots, axis=0)).sum(axis=0)
    return area


def _shares(side: Side) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of each cell, and the mean position in it; offsets were rounded down, half a unit."""
    cells, offsets = np.asarray(side.cells, dtype=np.float64), np.asarray(side.offsets, dtype=np.float64)
    middle = np.divide(offsets, cells, out=np.zeros_like(cells), where=cells > 0.0) + 0.5
    return cells / cells.sum(), middle / OFFSET_UNITS
