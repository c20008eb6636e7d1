"""The shapes of answers about a device's board."""

from __future__ import annotations

from hub.api.schemas import Schema


class GaugeOut(Schema):
    """A quantity over a span of time."""

    least: float
    mean: float
    greatest: float


class BoardOut(Schema):
    """A board over a span of the device's time; null is what it does not expose.

    ``throttled_share`` is the share of readings at which heat or power made it slower, pressure
    the share of the time in which work waited for a processor or for memory.
    """

    started_at_s: float
    ended_at_s: float
    throttled_share: float | None
    temperature_celsius: GaugeOut | None
    power_watts: GaugeOut | None
    free_memory_bytes: GaugeOut | None
    cpu_pressure: GaugeOut | None
    memory_pressure: GaugeOut | None
