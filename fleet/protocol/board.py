"""What a board says of itself over a span of time: temperature, power, free memory, throttling, pressure.

Each quantity is a `Gauge`: how often it was read, the sum, the least and the greatest, in whole units. So
gauges of two spans add up to that of both, exactly and in any order, and the mean is theirs too. What a board
does not expose is not there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Self

import msgspec

from fleet.protocol.fields import Count, UnixTime

Whole = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class Gauge(msgspec.Struct, frozen=True):
    """A quantity that was read several times.

    Attributes:
        count: How often.
        total: Sum of the readings.
        least: The least of them.
        greatest: The greatest.
    """

    count: Annotated[int, msgspec.Meta(ge=1, le=2**32)]
    total: Whole
    least: Whole
    greatest: Whole

    @classmethod
    def of(cls, readings: Iterable[int]) -> Self | None:
        """Return the gauge of readings; None of none."""
        found = list(readings)
        return cls(len(found), sum(found), min(found), max(found)) if found else None

    @property
    def mean(self) -> float:
        """The mean."""
        return self.total / self.count

    def merged(self, other: Gauge) -> Gauge:
        """Return the gauge of both spans."""
        return Gauge(
            self.count + other.count,
            self.total + other.total,
            min(self.least, other.least),
            max(self.greatest, other.greatest),
        )


class BoardWindow(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was read over a span of time; see `agent.sensors` for where it is read.

    Attributes:
        started_at_s: Device time, Unix seconds.
        ended_at_s: Likewise.
        readings: How often the board was read.
        throttled: At how many of these readings it was throttled: made slower, because it is hot or its power
            is short. None if it does not say.
        temperature_millidegrees: The hottest sensor, in thousandths of °C.
        power_milliwatts: The largest that a meter reads.
        free_memory_bytes: How much memory the agent can still have.
        cpu_pressure_ppm: Share of the time in which some work waited for a processor, in millionths.
        memory_pressure_ppm: Likewise, for memory.
    """

    started_at_s: UnixTime
    ended_at_s: UnixTime
    readings: Count
    throttled: Count | None = None
    temperature_millidegrees: Gauge | None = None
    power_milliwatts: Gauge | None = None
    free_memory_bytes: Gauge | None = None
    cpu_pressure_ppm: Gauge | None = None
    memory_pressure_ppm: Gauge | None = None
