"""How records stand in their table: telemetry windows that came together share a row, others have their own.

=========  =======================================================================================
device_id  data
=========  =======================================================================================
a device   the record as it came
NULL       windows of one model that came together: MessagePack's array of device, record as it
           came, device, record as it came, …; at most `PACKED_WINDOWS` windows
=========  =======================================================================================

A row and its index entries cost SQLite more than the 350 bytes of a window. Packed, a window costs a sixth of
that, and readers get many at once. Windows in a pack share a position and the time of arrival.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from fleet.protocol.heads import HeadBody, WindowHead, read_record
from fleet.protocol.messages import Record, encode
from fleet.protocol.noised import NoisedWindow
from fleet.protocol.records import DeploymentReport, Diagnostics, Incident, Measurement, ShadowReport
from hub.store.rows import IncomingRecord, RawRecord, StoredRecord

PACKED_WINDOWS = 64
MAX_READ_BYTES = 32 * 1024**2
"""Of records that are read in a step; so many of a usual size are fewer bytes."""
COLUMNS = "position, device_id, received_at_s, data"
INSERT = "INSERT INTO records (device_id, received_at_s, model, kind, data) VALUES (?, ?, ?, ?, ?)"

KINDS: Mapping[type[HeadBody], str] = {
    DeploymentReport: "deployment",
    Incident: "incident",
    WindowHead: "window",
    Diagnostics: "diagnostics",
    Measurement: "measurement",
    ShadowReport: "shadow",
    NoisedWindow: "noised",
}
_PACKS = msgspec.msgpack.Decoder(list[bytes])
_ENCODER = msgspec.msgpack.Encoder()


def rows_of(records: Sequence[IncomingRecord]) -> list[list[Any]]:
    """Return the rows of new records, in the order of what came first in each, for `INSERT`."""
    rows: list[list[Any]] = []
    packs: dict[str, list[bytes]] = {}
    for record in records:
        body = record.head.body
        if type(body) is not WindowHead:
            rows.append(_row(record))
            continue
        pack = packs.get(body.model)
        if pack is None or len(pack) == 2 * PACKED_WINDOWS:
            pack = packs[body.model] = []
            rows.append([None, record.received_at_s, body.model, "window", pack])
        pack.append(record.device_id.encode())
        pack.append(record.data)
    for row in rows:
        if row[0] is None:
            row[-1] = _ENCODER.encode(row[-1])
    return rows


def raw_records(
    rows: Iterable[Sequence[Any]], *, limit: int | None, most_bytes: float = math.inf
) -> list[RawRecord]:
    """Return the records of rows of `COLUMNS`: all of a row or none.

    Args:
        rows: In their order.
        limit: No further row is read after so many records,
        most_bytes: or after so many bytes of them.
    """
    found: list[RawRecord] = []
    size_bytes = 0
    for position, device_id, received_at_s, data in rows:
        size_bytes += len(data)
        if device_id is not None:
            found.append(RawRecord(position, device_id, received_at_s, data))
        else:
            parts = iter(_PACKS.decode(data))
            found += [
                RawRecord(position, device.decode(), received_at_s, window)
                for device, window in zip(parts, parts, strict=True)
            ]
        if (limit is not None and len(found) >= limit) or size_bytes >= most_bytes:
            break
    return found


def stored_record(raw: RawRecord) -> StoredRecord:
    """Return a record with its body.

    Raises:
        InvalidMessage: What was sealed cannot be understood.
    """
    return StoredRecord(raw.position, raw.device_id, raw.received_at_s, read_record(raw.data).body)


def _row(incoming: IncomingRecord) -> list[Any]:
    body, data = incoming.head.body, incoming.data
    if isinstance(body, Diagnostics):  # its bytes have a table of their own, which is bounded
        empty = msgspec.structs.replace(body, data=b"")
        data = encode(Record(incoming.head.stream, incoming.head.number, empty))
    model = None if isinstance(body, Incident | Diagnostics) else body.model
    return [incoming.device_id, incoming.received_at_s, model, KINDS[type(body)], data]
