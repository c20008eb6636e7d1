"""What the pass added up since the hub started, of a version: for metrics, whose counters start with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.latency import BUCKETS_PER_OCTAVE, LAST_BUCKET, upper_bound_us
from fleet.protocol.window_table import WindowTable

_LAST_BELOW = tuple(octave * BUCKETS_PER_OCTAVE - 1 for octave in range(4, 26, 2))
LE_S = tuple(upper_bound_us(bucket) / 1e6 for bucket in _LAST_BELOW)
"""Edges of the histogram for Prometheus, from 16 µs to 17 s: each is an edge of our buckets too."""
_MIDDLES_S = np.array([upper_bound_us(bucket) for bucket in range(LAST_BUCKET + 1)]) / 2 ** (1 / 8) / 1e6


@dataclass
class Answers:
    """What devices reported of their answers.

    Attributes:
        scalars: Predictions, errors, labelled and correct, shape (4,).
        latency: Durations in each bucket of `fleet.protocol.latency`, shape (128,).
    """

    scalars: NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, dtype=np.int64))
    latency: NDArray[np.int64] = field(default_factory=lambda: np.zeros(LAST_BUCKET + 1, dtype=np.int64))

    @property
    def below_edges(self) -> NDArray[np.int64]:
        """How many answers took less than each of `LE_S`."""
        below: NDArray[np.int64] = self.latency.cumsum()[list(_LAST_BELOW)]
        return below

    @property
    def seconds(self) -> float:
        """How long all of them took together, as if each took the middle of its bucket: within 9 %."""
        return float(self.latency @ _MIDDLES_S)

    def plus(self, other: Answers) -> Answers:
        """Return both together."""
        return Answers(self.scalars + other.scalars, self.latency + other.latency)

    def with_windows(self, table: WindowTable) -> Answers:
        """Return these and those of windows."""
        return Answers(self.scalars + table.scalars.sum(axis=0), self.latency + table.latency.sum(axis=0))
