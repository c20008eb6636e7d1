"""Latency as counts over log-spaced buckets, mergeable by addition.

Bucket ``i`` holds durations from ``2^(i/4)`` µs up to, but not including, ``2^((i+1)/4)`` µs: four buckets an
octave, so a quantile read from the counts is within 19 % (``2^(1/4)``) of the true one. Bucket 0 also holds
everything shorter than 1 µs, bucket 127 everything longer than an hour. This is the idea of HDR histograms
and of DDSketch (Masson, Rim, Lee: "DDSketch", VLDB 2019), with a fixed, shared grid.
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

BUCKETS_PER_OCTAVE = 4
LAST_BUCKET = 127

LatencyCounts = dict[
    Annotated[int, msgspec.Meta(ge=0, le=LAST_BUCKET)], Annotated[int, msgspec.Meta(ge=1, le=2**53)]
]
"""How many durations fell into each bucket; buckets without any are left out."""


def bucket(duration_us: float) -> int:
    """Return the bucket of a duration in microseconds."""
    if duration_us < 1.0:
        return 0
    return min(LAST_BUCKET, int(math.log2(duration_us) * BUCKETS_PER_OCTAVE))


def count_durations(durations_us: NDArray[np.float64]) -> LatencyCounts:
    """Return the counts of many durations in microseconds, shape (N,)."""
    exponents = np.log2(np.maximum(durations_us, 1.0)) * BUCKETS_PER_OCTAVE
    counts = np.bincount(np.minimum(exponents.astype(np.int64), LAST_BUCKET))
    return {int(index): int(counts[index]) for index in counts.nonzero()[0]}


def upper_bound_us(index: int) -> float:
    """Return the upper edge of a bucket, in microseconds."""
    return float(2.0 ** ((index + 1) / BUCKETS_PER_OCTAVE))


def merge_latency(left: LatencyCounts, right: LatencyCounts) -> LatencyCounts:
    """Return the counts of both."""
    return {index: left.get(index, 0) + right.get(index, 0) for index in sorted(left.keys() | right.keys())}


def quantile_us(counts: LatencyCounts, q: float) -> float | None:
    """Return an upper bound of the q-quantile in microseconds; None if nothing was counted.

    Args:
        counts: The histogram.
        q: 0 to 1.
    """
    total = sum(counts.values())
    if total == 0:
        return None
    needed, seen = q * total, 0
    for index in sorted(counts):
        seen += counts[index]
        if seen >= needed:
            return upper_bound_us(index)
    return upper_bound_us(max(counts))


def count_above(counts: LatencyCounts, last: int) -> tuple[int, int]:
    """Return how many durations lie in buckets above one, and how many there are.

    Args:
        counts: The histogram.
        last: The bucket, that of a budget for all that are wholly above the budget.
    """
    above = total = 0
    for index, number in counts.items():
        total += number
        if index > last:
            above += number
    return above, total
