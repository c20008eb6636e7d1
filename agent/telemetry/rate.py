"""A token bucket: how many may go now, so that in the long run they go at a rate.

The bucket fills at the rate up to its size, and each that goes takes one token. In any span of ``t`` seconds
therefore go at most ``burst + rate * t``. A clock that goes back fills nothing and takes nothing away.
(The meter of RFC 2697, section 3, with one colour.)
"""

from __future__ import annotations


class TokenBucket:
    """How many may go now.

    Args:
        rate_per_s: Tokens a second.
        burst: The bucket's size; it is full at first.
        now_s: A monotonic clock's time, seconds; so is every ``now_s`` below.
    """

    def __init__(self, rate_per_s: float, burst: int, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = float(burst)
        self._at_s = now_s

    def available(self, now_s: float) -> int:
        """Return how many may go now."""
        self._fill(now_s)
        return int(self._tokens)

    def take(self, count: int, now_s: float) -> None:
        """Let some go.

        Args:
            count: At most as many as are `available`.
            now_s: Now.
        """
        self._fill(now_s)
        self._tokens -= count

    def wait_s(self, now_s: float) -> float:
        """Return how long it takes until one may go; 0 if one may go now."""
        self._fill(now_s)
        return max(0.0, (1.0 - self._tokens) / self._rate_per_s)

    def _fill(self, now_s: float) -> None:
        passed_s = max(0.0, now_s - self._at_s)
        self._tokens = min(float(self._burst), self._tokens + passed_s * self._rate_per_s)
        self._at_s = max(self._at_s, now_s)
