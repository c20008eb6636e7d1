"""How fast orders are given: a bucket of credit that fills at the plan's rate.

In any time of t seconds at most ``per_minute · t / 60 + burst`` orders are given, where the burst is what ten
seconds bring, or one order: so a hub that ticks every second gives them evenly, and one that was busy for
some seconds loses nothing.
"""

from __future__ import annotations

import msgspec

BURST_S = 10.0


class Pace(msgspec.Struct, frozen=True):
    """The bucket.

    Attributes:
        credit: How many orders it held.
        at_s: When; None while nothing was taken, and it is full.
    """

    credit: float = 0.0
    at_s: float | None = None

    def available(self, per_minute: float, now_s: float) -> float:
        """Return how many orders it holds now; only whole ones can be given."""
        burst = max(1.0, per_minute * BURST_S / 60.0)
        if self.at_s is None:
            return burst
        return min(burst, self.credit + max(0.0, now_s - self.at_s) * per_minute / 60.0)

    def allows(self, most: int, per_minute: float | None, now_s: float) -> int:
        """Return how many of so many orders can be given now; all of them without a rate."""
        return most if per_minute is None else min(most, int(self.available(per_minute, now_s)))

    def since(self, now_s: float) -> Pace:
        """Return the bucket as it fills from now on, if the clock was set back behind its time.

        That brings no credit; but neither is a clock that was ahead for a moment waited for.
        """
        return self if self.at_s is None or self.at_s <= now_s else Pace(self.credit, now_s)

    def less(self, count: int, per_minute: float | None, now_s: float) -> Pace:
        """Return the bucket after so many orders were given; without a rate nothing is counted."""
        if per_minute is None:
            return self
        return Pace(self.available(per_minute, now_s) - count, now_s)
