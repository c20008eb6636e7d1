"""What the store keeps of telemetry windows, added up. Times are Unix seconds.

A *subject* is what windows are added up for: one device, or a cohort, which is one value of one attribute.

========================  ==========================  =====================================================
key                       value                       windows of
========================  ==========================  =====================================================
``all``                   empty                       every device
``device``                the device's id             that device
an attribute, ``site``    one of its values           the devices that had it when the window was taken in
========================  ==========================  =====================================================
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from fleet.protocol.records import TelemetryWindow

EVERY_DEVICE = "all"
ONE_DEVICE = "device"

MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86400
COHORT_RESOLUTIONS_S = (MINUTE_S, HOUR_S, DAY_S)
DEVICE_RESOLUTIONS_S = (HOUR_S, DAY_S)
"""A device's own minutes would be as many as its windows; those are kept anyway, for a time."""


class RollupKey(NamedTuple):
    """Which sum it is: of whom, of which version, and of what time."""

    key: str
    value: str
    model: str
    version: int
    duration_s: int
    start_s: int


class SealedRollup(NamedTuple):
    """A sum as it is stored.

    Attributes:
        which: Which sum it is.
        windows: How many windows are in it.
        heard: Of which devices, see `fleet.distinct`; empty for one device.
        body: The window that they add up to, in MessagePack, with its counts sealed.
    """

    which: RollupKey
    windows: int
    heard: bytes
    body: bytes


class RollupRow(msgspec.Struct, frozen=True):
    """The windows of one subject and version over one span of time, added up.

    Attributes:
        key: ``all``, ``device`` or an attribute; see the head of this file.
        value: Of that attribute, or the device's id; empty for ``all``.
        model: Name of the model.
        version: Its version.
        start_s: Where the span begins; a multiple of ``duration_s``.
        duration_s: 60, 3,600 or 86,400.
        windows: How many windows are in it.
        devices: How many devices sent them, exactly below 128; an estimate with 3 % error from there on.
        window: The sum; what is read of it is fixed by `fleet.protocol.windows.merge_windows`.
    """

    key: str
    value: str
    model: str
    version: int
    start_s: int
    duration_s: int
    windows: int
    devices: int
    window: TelemetryWindow
