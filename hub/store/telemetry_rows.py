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

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from fleet.protocol.records import TelemetryWindow
from hub.store.rows import DeadLetter, DriftRow

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


VersionKey = tuple[str, str, int]
"""A device, a model, and its version."""


class CohortValue(NamedTuple):
    """A value of an attribute that is a cohort of its own, see `fleet.cohorts`.

    Attributes:
        key: The attribute.
        value: The value.
        device_id: The device that had it first; empty where that is not known.
        last_s: When the last day began on which a device had it.
    """

    key: str
    value: str
    device_id: str
    last_s: int


NoisedKey = tuple[str, int, int]
"""A model, its version, and when a day begins."""


class StrongEvidence(NamedTuple):
    """Evidence for drift that may matter to others, see `fleet.drift.alarms`.

    Attributes:
        device_id: Of which device.
        model: Of which model,
        version: and version, which the device is to run now.
        values: Of each feature that has some.
    """

    device_id: str
    model: str
    version: int
    values: tuple[float, ...]


class TelemetryStep(msgspec.Struct, frozen=True):
    """What a step of the telemetry pass changes, see `hub.telemetry`: all of it, or nothing.

    Windows are in MessagePack with their counts sealed.

    Attributes:
        previous: Up to which position records were counted before,
        position: and up to which they are counted after it.
        received_at_s: When the newest of the records was received.
        totals: The sums of all times, by device and version.
        rollups: The sums over time.
        blocks: What was counted since the last look for drift; None where a look was just taken.
        drift: Alarms after a look.
        cohort_values: Those that are new, or were not heard of yet that day.
        noised: Sums of noised windows, see `fleet.privacy.sums`, in MessagePack.
        letters: What could not be counted.
        letters_kept: How many dead letters are kept.
    """

    previous: int = 0
    position: int = 0
    received_at_s: float = 0.0
    totals: Mapping[VersionKey, bytes] = {}
    rollups: Sequence[SealedRollup] = ()
    blocks: Mapping[VersionKey, bytes | None] = {}
    drift: Sequence[DriftRow] = ()
    cohort_values: Sequence[CohortValue] = ()
    noised: Mapping[NoisedKey, bytes] = {}
    letters: Sequence[DeadLetter] = ()
    letters_kept: int = 10_000
