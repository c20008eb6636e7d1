"""Records that count nowhere, as dead letters."""

from __future__ import annotations

from fleet.protocol import topics
from fleet.protocol.errors import MusterError
from fleet.protocol.topics import Up
from hub.store.rows import DeadLetter, RawRecord

MAX_DEAD_LETTER_BYTES = 4096


def letter(record: RawRecord, error: MusterError) -> DeadLetter:
    """Return a record as a dead letter."""
    return DeadLetter(
        topics.up(record.device_id, Up.RECORD),
        record.received_at_s,
        error.cause(),
        record.data[:MAX_DEAD_LETTER_BYTES],
        record.device_id,
    )
