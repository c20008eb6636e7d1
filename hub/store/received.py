"""Which numbers of a stream were received: an exact set of whole numbers, kept as ranges.

A device numbers its records, and sends each until it is acknowledged. So nearly all numbers up to the newest
are received, and the set is one range, or a few where a report overtook windows, or where an outbox that was
full merged two windows. Kept instead of an index over every record, the set outlives records that are
deleted, and looking a number up costs a comparison.

::

    received        first  last         kept as
    1 2 3 4 7 8     [1, 7] [4, 8]       1 3 3 1     (first; then how many more; gap to the next first; …)

As bytes it is MessagePack's array of these numbers. A hostile device could send every second number for ever:
beyond `MAX_RANGES`, the lowest gap is closed, and what would have filled it counts as received.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Self

import msgspec

MAX_RANGES = 65_536
"""More gaps than a device's outbox of the default size has records."""

_NUMBERS = msgspec.msgpack.Decoder(list[int])
_ENCODER = msgspec.msgpack.Encoder()


class Received:
    """A set of whole numbers from 0 on."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Self:
        """Return the set of these numbers."""
        made = cls()
        for number in numbers:
            made.add(number)
        return made

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the set that `to_bytes` gave."""
        made, at = cls(), 0
        numbers = iter(_NUMBERS.decode(data))
        for gap, more in zip(numbers, numbers, strict=True):
            made._firsts.append(at + gap)
            at += gap + more
            made._lasts.append(at)
        return made

    def to_bytes(self) -> bytes:
        """Return the set as it is kept."""
        if len(self._firsts) == 1:  # as nearly always
            return _ENCODER.encode((self._firsts[0], self._lasts[0] - self._firsts[0]))
        numbers: list[int] = []
        at = 0
        for first, last in zip(self._firsts, self._lasts, strict=True):
            numbers += (first - at, last - first)
            at = last
        return _ENCODER.encode(numbers)

    def add(self, number: int) -> bool:
        """Put a number in; tell whether it is new."""
        firsts, lasts = self._firsts, self._lasts
        if lasts and number == lasts[-1] + 1:  # as it nearly always is
            lasts[-1] = number
            return True
        at = bisect_right(firsts, number)  # ranges before `at` begin at or below the number
        if at and number <= lasts[at - 1]:
            return False
        after = at > 0 and number == lasts[at - 1] + 1
        before = at < len(firsts) and number == firsts[at] - 1
        if after and before:
            lasts[at - 1] = lasts.pop(at)
            del firsts[at]
        elif after:
            lasts[at - 1] = number
        elif before:
            firsts[at] = number
        else:
            firsts.insert(at, number)
            lasts.insert(at, number)
            self._close_lowest_gap()
        return True

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int):
            return False
        at = bisect_right(self._firsts, number)
        return at > 0 and number <= self._lasts[at - 1]

    def __len__(self) -> int:
        """Return how many ranges there are."""
        return len(self._firsts)

    def _close_lowest_gap(self) -> None:
        if len(self._firsts) > MAX_RANGES:
            self._lasts[0] = self._lasts.pop(1)
            del self._firsts[1]
