"""Waiting longer after each failure, and never in step with other devices.

The wait before attempt ``n`` is drawn evenly from ``[low, high]`` with ``high = min(maximum, minimum ·
2^n)`` and ``low = high / 2``: the doubling relieves a peer in trouble, the draw spreads a fleet that lost
it at the same moment.
"""

from __future__ import annotations

import random


class Backoff:
    """The waits between attempts at one thing.

    Args:
        minimum_s: The longest first wait.
        maximum_s: The longest wait at all.
    """

    def __init__(self, minimum_s: float, maximum_s: float) -> None:
        self._minimum_s = minimum_s
        self._maximum_s = maximum_s
        self._random = random.Random()  # noqa: S311 - spreads load, protects nothing
        self.failures = 0

    def next_s(self) -> float:
        """Return how long to wait now, in seconds, and count a failure."""
        high_s = min(self._maximum_s, self._minimum_s * 2 ** min(self.failures, 32))
        self.failures += 1
        return self._random.uniform(high_s / 2, high_s)

    def reset(self) -> None:
        """Start again with the shortest wait, after a success."""
        self.failures = 0
