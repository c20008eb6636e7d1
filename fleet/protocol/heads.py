"""Records as the hub takes them in: what identifies and places them is read, the rest is left for later.

A telemetry window is by far the most frequent record, and what it counts is most of its bytes. To take it in,
it is enough to know whose it is and of which bundle, so only its head is decoded here; the rest is skipped,
which still proves that it is MessagePack. The bytes are kept as they came, and what a window counts is read
once, when it is counted. Records of all other kinds are rare and decoded whole.

The patterns of names are not checked here either, which is most of the time that decoding takes: the reader
compares a window's names with what it knows, and checks what it sees for the first time (`hub.ingest`).
"""

from __future__ import annotations

import msgspec

from fleet.protocol.errors import InvalidMessage, MessageTooLarge
from fleet.protocol.fields import Count, UnixTime
from fleet.protocol.messages import MAX_MESSAGE_SIZE_BYTES, Record
from fleet.protocol.noised import NoisedWindow
from fleet.protocol.records import (
    DeploymentReport,
    Diagnostics,
    Incident,
    Measurement,
    SealedWindow,
    ShadowReport,
)


class WindowHead(msgspec.Struct, frozen=True, gc=False, tag="window"):
    """The head of a telemetry window, see `fleet.protocol.records.TelemetryWindow`."""

    started_at_s: UnixTime
    ended_at_s: UnixTime
    model: str
    version: Count
    manifest_sha256: str
    variant: str
    predictions: Count = 0
    errors: Count = 0
    labelled: Count = 0
    correct: Count = 0


RareBody = DeploymentReport | Incident | NoisedWindow | Diagnostics | Measurement | ShadowReport
HeadBody = WindowHead | RareBody


class RecordHead(msgspec.Struct, frozen=True, gc=False):
    """A record, see `fleet.protocol.messages.Record`; if it is a window, its head alone."""

    stream: str
    number: Count
    body: HeadBody


class SealedRecord(msgspec.Struct, frozen=True, gc=False):
    """A record; if it is a window, with its counts sealed."""

    body: SealedWindow | RareBody


# Made at import: msgspec crashes if two threads learn a type at the same time.
_HEADS = msgspec.msgpack.Decoder(RecordHead)
_SEALED = msgspec.msgpack.Decoder(SealedRecord)
_WHOLE = msgspec.msgpack.Decoder(Record)


def read_head(data: bytes) -> RecordHead:
    """Return the record in a message's bytes; of a window its head alone.

    Raises:
        MessageTooLarge: It is larger than any message may be.
        InvalidMessage: It is no record.
    """
    if len(data) > MAX_MESSAGE_SIZE_BYTES:
        raise MessageTooLarge(
            f"A Record of {len(data)} bytes was received; {MAX_MESSAGE_SIZE_BYTES} are allowed."
        )
    try:
        return _HEADS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"A Record cannot be understood: {error}.") from error


def read_record(data: bytes) -> Record:
    """Return the whole record in the bytes, with what a window counts.

    Raises:
        InvalidMessage: It cannot be understood.
    """
    try:
        return _WHOLE.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"A Record cannot be understood: {error}.") from error


def read_sealed(data: bytes) -> SealedWindow | RareBody:
    """Return the body in a record's bytes; if it is a window, with its counts sealed.

    Raises:
        InvalidMessage: It cannot be understood.
    """
    try:
        return _SEALED.decode(data).body
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"A Record cannot be understood: {error}.") from error
