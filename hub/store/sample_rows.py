"""What the store keeps about captured samples, as plain values. Times are Unix seconds."""

from __future__ import annotations

import msgspec

from fleet.protocol.capture import CapturePolicy
from fleet.protocol.samples import Reason


class CaptureRow(msgspec.Struct, frozen=True):
    """That a device is to capture samples of a model: by what policy, since when, by whom."""

    device_id: str
    model: str
    policy: CapturePolicy
    at_s: float
    by: str


class SampleRow(msgspec.Struct, frozen=True):
    """A sample without its inputs; ``number`` rises with every sample of the whole fleet.

    See `fleet.protocol.samples.Sample` for the fields that it shares with it.
    """

    number: int
    device_id: str
    model: str
    version: int
    at_s: float
    received_at_s: float
    reason: Reason
    size_bytes: int
    feature: str = ""
    redaction: str | None = None
    category: int | None = None
    confidence: float | None = None


class SampleFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which samples are meant: those for which all that is given holds.

    Attributes:
        model: Of this model.
        device_id: From this device.
        reason: Captured for this reason.
        since_s: Received at or after this time.
        until_s: Received before this time.
    """

    model: str | None = None
    device_id: str | None = None
    reason: Reason | None = None
    since_s: float | None = None
    until_s: float | None = None
