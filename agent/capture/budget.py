"""How many bytes of samples may be captured now: never more in a day than the policy says, spread over it.

A day is one of the device's clock, UTC. Within it bytes come at an even rate, by a token bucket that holds an
hour's worth, or one sample's if that is more: so what a day has is not spent on its first busy minute. What a
day has spent outlives restarts (`agent.capture.spool`); a clock that is set begins another day.
"""

from __future__ import annotations

from agent.telemetry.rate import TokenBucket
from fleet.protocol.capture import CapturePolicy

DAY_S = 86400
_BURST_S = 3600


class Budget:
    """What may be captured of one model.

    Args:
        policy: What the hub allows.
        limit_bytes: What the device's owner allows in a day.
        day: Of what was spent before.
        spent_bytes: On that day.
        now_s: A monotonic clock's time, seconds.
    """

    def __init__(
        self, policy: CapturePolicy, limit_bytes: int, *, day: int, spent_bytes: int, now_s: float
    ) -> None:
        self._per_day = min(policy.bytes_per_day, limit_bytes)
        burst = min(self._per_day, max(policy.sample_bytes, self._per_day * _BURST_S // DAY_S))
        self._bucket = TokenBucket(self._per_day / DAY_S, burst, now_s)
        self.day = day
        self.spent_bytes = spent_bytes

    def has_room(self, now_s: float) -> bool:
        """Tell whether anything may be captured now; cheap, to be asked of each request."""
        return self._bucket.available(now_s) > 0

    def take(self, size_bytes: int, *, at_s: float, now_s: float) -> bool:
        """Spend bytes if they may be spent; tell whether they were.

        Args:
            size_bytes: How many.
            at_s: Unix time.
            now_s: A monotonic clock's time.
        """
        day = int(at_s // DAY_S)
        spent = self.spent_bytes if day == self.day else 0
        if spent + size_bytes > self._per_day or size_bytes > self._bucket.available(now_s):
            return False
        self._bucket.take(size_bytes, now_s)
        self.day, self.spent_bytes = day, spent + size_bytes
        return True
