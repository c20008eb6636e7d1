"""How fast messages are sent: waiting after failures, and a bound on how many go out in a minute."""

from __future__ import annotations

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 600.0
_DOUBLINGS = 16


def retry_wait_s(attempts: int, jitter: float) -> float:
    """Return how long to wait after a failure: twice as long after each, up to a bound.

    Args:
        attempts: How many have failed; at least 1.
        jitter: From 0 to 1, by chance: half of the wait depends on it, so that hubs that failed together do
            not come back together.
    """
    longest_s: float = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempts - 1, _DOUBLINGS))
    return longest_s * (0.5 + 0.5 * jitter)


class Allowance:
    """A token bucket: as many as fit into a minute at once, and then at that rate.

    Args:
        per_minute: How many.
        now_s: Any clock that only goes forward.
    """

    def __init__(self, per_minute: float, now_s: float) -> None:
        self._per_second = per_minute / 60.0
        self._most = per_minute
        self._left = per_minute
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Return how long to wait before the next; 0 if it may go now."""
        self._refill(now_s)
        return 0.0 if self._left >= 1.0 else (1.0 - self._left) / self._per_second

    def take(self, now_s: float) -> None:
        """Count one that goes now."""
        self._refill(now_s)
        self._left -= 1.0

    def _refill(self, now_s: float) -> None:
        self._left = min(self._most, self._left + max(0.0, now_s - self._at_s) * self._per_second)
        self._at_s = now_s
