"""What devices reported: every record exactly once, and what they add up to."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlite_utils

from fleet.protocol.errors import Cause, InvalidMessage
from fleet.protocol.messages import encode
from fleet.protocol.records import (
    DeploymentReport,
    Diagnostics,
    Incident,
    Measurement,
    RecordBody,
    ShadowReport,
    TelemetryWindow,
    packed,
)
from fleet.protocol.windows import contradiction, merge_windows
from hub.store.rows import DeadLetter, IncomingRecord, StoredRecord, VersionTotals
from hub.store.sqlite.database import Part
from hub.store.sqlite.diagnostics import keep_diagnostics
from hub.store.sqlite.measurements import keep_measurements
from hub.store.sqlite.migrations import table
from hub.store.sqlite.shadows import add_shadows

log = logging.getLogger(__name__)

_KINDS = {
    DeploymentReport: "deployment",
    Incident: "incident",
    TelemetryWindow: "window",
    Diagnostics: "diagnostics",
    Measurement: "measurement",
    ShadowReport: "shadow",
}
_INSERT = (
    "INSERT OR IGNORE INTO records (device_id, stream, number, received_at_s, model, kind, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)


class SqliteRecords(Part):
    """Implements `hub.store.protocols.RecordStore`."""

    def add_records(self, records: Sequence[IncomingRecord]) -> int:
        """Store the records that are not stored yet; return how many were new."""
        with self._database.writing() as db:
            new = [record for record in records if db.execute(_INSERT, _values(record)).rowcount == 1]
            _add_to_totals(db, new)
            keep_diagnostics(db, new)
            keep_measurements(db, new)
            add_shadows(db, new)
        return len(new)

    def add_dead_letter(self, letter: DeadLetter) -> None:
        """Keep a message that could not be taken in."""
        with self._database.writing() as db:
            table(db, "dead_letters").insert(
                {
                    "topic": letter.topic,
                    "received_at_s": letter.received_at_s,
                    "cause": msgspec.json.encode(letter.cause).decode(),
                    "payload": letter.payload,
                }
            )

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """Return the newest dead letters, newest first."""
        rows = self._database.rows("SELECT * FROM dead_letters ORDER BY id DESC LIMIT ?", (limit,))
        return [
            DeadLetter(
                topic=row["topic"],
                received_at_s=row["received_at_s"],
                cause=msgspec.json.decode(row["cause"], type=Cause),
                payload=row["payload"],
            )
            for row in rows
        ]

    def count_dead_letters(self) -> int:
        """Return how many dead letters there are."""
        row = self._database.row("SELECT count(*) AS number FROM dead_letters")
        return int(row["number"]) if row else 0

    def records_after(
        self, position: int, *, model: str | None = None, limit: int = 1000
    ) -> list[StoredRecord]:
        """Return records in the order they were stored; incidents have no model."""
        if model is None:
            sql = "SELECT * FROM records WHERE position > ? ORDER BY position LIMIT ?"
            return _stored(self._database.rows(sql, (position, limit)))
        sql = "SELECT * FROM records WHERE model = ? AND position > ? ORDER BY position LIMIT ?"
        return _stored(self._database.rows(sql, (model, position, limit)))

    def timeline(self, device_id: str, *, before: int | None = None, limit: int = 100) -> list[StoredRecord]:
        """Return one device's reports and incidents (no windows), newest first."""
        return _stored(
            self._database.rows(
                "SELECT * FROM records WHERE device_id = ? AND kind IN ('deployment', 'incident')"
                " AND (? IS NULL OR position < ?) ORDER BY position DESC LIMIT ?",
                (device_id, before, before, limit),
            )
        )

    def last_reports(self, *, device_id: str | None = None) -> list[StoredRecord]:
        """Return the newest deployment report of each device and model."""
        return _stored(
            self._database.rows(
                "SELECT * FROM records WHERE position IN (SELECT max(position) FROM records"
                " WHERE kind = 'deployment' AND (? IS NULL OR device_id = ?) GROUP BY device_id, model)",
                (device_id, device_id),
            )
        )

    def last_position(self) -> int:
        """Return the position of the newest record; 0 for none."""
        row = self._database.row("SELECT coalesce(max(position), 0) AS position FROM records")
        return int(row["position"]) if row else 0

    def totals(self, *, device_id: str | None = None, model: str | None = None) -> list[VersionTotals]:
        """Return what devices reported about versions, added up."""
        rows = self._database.rows(
            "SELECT * FROM totals WHERE (? IS NULL OR device_id = ?) AND (? IS NULL OR model = ?)"
            " ORDER BY device_id, model, version",
            (device_id, device_id, model, model),
        )
        return [
            VersionTotals(
                device_id=row["device_id"],
                model=row["model"],
                version=row["version"],
                totals=msgspec.msgpack.decode(row["body"], type=TelemetryWindow),
            )
            for row in rows
        ]


def _add_to_totals(db: sqlite_utils.Database, records: Iterable[IncomingRecord]) -> None:
    sums: dict[tuple[str, str, int], TelemetryWindow] = {}
    for incoming in records:
        window = incoming.record.body
        if isinstance(window, TelemetryWindow) and contradiction(window) is None:
            key = (incoming.device_id, window.model, window.version)
            known = sums.get(key) or _total(db, key)
            try:
                sums[key] = merge_windows(known, window) if known else window
            except InvalidMessage as error:
                log.warning("A telemetry window of %s is not added up: %s", incoming.device_id, error)
    for (device_id, model, version), window in sums.items():
        db.execute(
            "INSERT INTO totals (device_id, model, version, body) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (device_id, model, version) DO UPDATE SET body = excluded.body",
            [device_id, model, version, msgspec.msgpack.encode(window)],
        )


def _total(db: sqlite_utils.Database, key: tuple[str, str, int]) -> TelemetryWindow | None:
    row = db.execute(
        "SELECT body FROM totals WHERE device_id = ? AND model = ? AND version = ?", list(key)
    ).fetchone()
    return msgspec.msgpack.decode(row[0], type=TelemetryWindow) if row else None


def _values(incoming: IncomingRecord) -> list[Any]:
    record = incoming.record
    body = record.body
    if isinstance(body, Diagnostics):  # its bytes have a table of their own, which is bounded
        body = msgspec.structs.replace(body, data=b"")
    return [
        incoming.device_id,
        record.stream,
        record.number,
        incoming.received_at_s,
        None if isinstance(body, Incident | Diagnostics) else body.model,
        _KINDS[type(body)],
        encode(packed(body)),
    ]


def _stored(rows: list[dict[str, Any]]) -> list[StoredRecord]:
    return [
        StoredRecord(
            position=row["position"],
            device_id=row["device_id"],
            received_at_s=row["received_at_s"],
            body=msgspec.msgpack.decode(row["body"], type=RecordBody),
        )
        for row in rows
    ]
