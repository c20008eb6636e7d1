"""A batch of messages on its way into the store, as plain values: stored whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from fleet.protocol.messages import Hello, StateReport
from hub.store.rows import DeadLetter, IncomingRecord

RecordKey = tuple[str, str, int]
"""Device, stream and number."""


class Said(msgspec.Struct):
    """What one device said of itself within a batch: the last of each kind.

    Attributes:
        online: As the last of all that it said has it; None if nothing did.
    """

    online: bool | None = None
    hello: Hello | None = None
    report: StateReport | None = None


class Intake(msgspec.Struct, frozen=True):
    """What a batch of messages comes to.

    Attributes:
        now_s: When it was received.
        records: In the order of arrival; some may have been received before.
        letters: Messages that could not be taken in.
        objections: Dead letters of records that contradict themselves: kept if the record is new.
        devices: What devices said of themselves.
        dead_letters_kept: How many dead letters are kept.
    """

    now_s: float = 0.0
    records: Sequence[IncomingRecord] = ()
    letters: Sequence[DeadLetter] = ()
    objections: Mapping[RecordKey, DeadLetter] = {}
    devices: Mapping[str, Said] = {}
    dead_letters_kept: int = 10_000
