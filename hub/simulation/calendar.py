"""What will reach the hub, and when: rows of numbers, sorted only when their time is near.

Rows are put into buckets of some seconds as they come, whole arrays at once, and a bucket is sorted by time
of arrival when it is opened. So a row costs the same however many there are; nothing is a heap of devices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BUCKET_S = 8.0

Rows = NDArray[np.void]


class Calendar:
    """Rows by time.

    Args:
        dtype: Of the rows; their ``arrives_s`` says when. Of equal times the first one put in is the first.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._buckets: dict[int, list[Rows]] = {}
        self._open: Rows = np.empty(0, dtype)
        self._opened = -1
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, rows: Rows) -> None:
        """Add rows; those that never arrive are left out, and those of the past arrive at once."""
        arrives_s = rows["arrives_s"]
        is_ever = np.isfinite(arrives_s)
        if not is_ever.all():
            rows, arrives_s = rows[is_ever], arrives_s[is_ever]
        if len(rows) == 0:
            return
        self._count += len(rows)
        numbers = np.maximum(arrives_s // _BUCKET_S, self._opened).astype(np.int64)
        if numbers[0] == numbers[-1] and (numbers == numbers[0]).all():
            self._put_into(int(numbers[0]), rows)
            return
        order = np.argsort(numbers, kind="stable")
        rows, numbers = rows[order], numbers[order]
        for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(numbers)) + 1):
            self._put_into(int(numbers[part[0]]), rows[part])

    def _put_into(self, number: int, rows: Rows) -> None:
        self._buckets.setdefault(number, []).append(rows)

    def take(self, until_s: float) -> Rows:
        """Remove and return what arrives until a time, in order."""
        found: list[Rows] = []
        if self._opened in self._buckets:  # what was put in since it was opened
            self._open = self._sorted([self._open, *self._buckets.pop(self._opened)])
        while self._opened < until_s // _BUCKET_S:
            found.append(self._open)
            self._opened += 1
            self._open = self._sorted(self._buckets.pop(self._opened, []))
        cut = int(np.searchsorted(self._open["arrives_s"], until_s, side="right"))
        found.append(self._open[:cut])
        self._open = self._open[cut:]
        taken = np.concatenate(found) if len(found) > 1 else found[0]
        self._count -= len(taken)
        return taken

    def _sorted(self, parts: list[Rows]) -> Rows:
        if not parts:
            return np.empty(0, self._dtype)
        rows = np.concatenate(parts)
        return rows[np.argsort(rows["arrives_s"], kind="stable")]
