"""What devices reported: every record exactly once."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from fleet.protocol.errors import InvalidMessage
from fleet.protocol.heads import WindowHead
from hub.store.intake_rows import Intake
from hub.store.rows import DeadLetter, IncomingRecord, RawRecord, StoredRecord
from hub.store.sqlite.database import Database, Part
from hub.store.sqlite.dead_letters import keep_letters
from hub.store.sqlite.devices import note_said
from hub.store.sqlite.diagnostics import keep_diagnostics
from hub.store.sqlite.measurements import keep_measurements
from hub.store.sqlite.packs import COLUMNS, INSERT, MAX_READ_BYTES, raw_records, rows_of, stored_record
from hub.store.sqlite.shadows import add_shadows
from hub.store.sqlite.states import keep_deployments
from hub.store.sqlite.streams import Streams


class SqliteRecords(Part):
    """Implements `hub.store.protocols.RecordStore`."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._streams = Streams()
        self._taking_in = threading.Lock()

    def add_records(self, records: Sequence[IncomingRecord]) -> int:
        """Store the records that were not received before; return how many that were."""
        return self.take_in(Intake(records=records))

    def take_in(self, intake: Intake) -> int:
        """Store a batch of messages, see `hub.store.protocols.RecordStore.take_in`."""
        with self._taking_in:
            try:
                new = self._store(intake)
            except BaseException:
                self._streams.failed()
                raise
            self._streams.committed()
        return len(new)

    def _store(self, intake: Intake) -> list[IncomingRecord]:
        with self._database.writing() as db:
            new = self._streams.new_of(db, intake.records)
            db.conn.executemany(INSERT, rows_of(new))
            rare = [record for record in new if type(record.head.body) is not WindowHead]
            keep_diagnostics(db, rare)
            keep_measurements(db, rare)
            add_shadows(db, rare)
            keep_deployments(db, rare)
            keep_letters(db, _letters(intake, new), intake.dead_letters_kept)
            for device_id, said in intake.devices.items():
                note_said(db, device_id, said, intake.now_s)
        return new

    def delete_records(
        self, *, upto_position: int, older_than_s: float, kinds: Sequence[str], limit: int = 1000
    ) -> int:
        """Delete old records, see `hub.store.protocols.RecordStore.delete_records`."""
        marks = ", ".join("?" * len(kinds))
        # The newest row stays, whatever its age: its position must never be given out again.
        which = (
            "position <= ? AND position < (SELECT max(position) FROM records)"  # noqa: S608 - marks
            f" AND received_at_s < ? AND kind IN ({marks}) ORDER BY position"
        )
        values = (upto_position, older_than_s, *kinds)
        return self._database.delete_some("records", which, values, limit=limit)

    def raw_records_after(
        self, position: int, *, model: str | None = None, limit: int = 1000
    ) -> list[RawRecord]:
        """Return records as they came, in the order they were stored."""
        sql = f"SELECT {COLUMNS} FROM records WHERE position > ? ORDER BY position"  # noqa: S608 - constant
        if model is None:
            return self._raw(sql, (position,), limit, most_bytes=MAX_READ_BYTES)
        sql = f"SELECT {COLUMNS} FROM records WHERE model = ? AND position > ? ORDER BY position"  # noqa: S608 - constant
        return self._raw(sql, (model, position), limit, most_bytes=MAX_READ_BYTES)

    def timeline(self, device_id: str, *, before: int | None = None, limit: int = 100) -> list[StoredRecord]:
        """Return one device's reports and incidents (no windows), newest first."""
        raw = self._raw(
            f"SELECT {COLUMNS} FROM records WHERE device_id = ? AND kind IN ('deployment', 'incident')"  # noqa: S608 - constant
            " AND (? IS NULL OR position < ?) ORDER BY position DESC",
            (device_id, before, before),
            limit,
        )
        return _readable(raw)

    def last_position(self) -> int:
        """Return the position of the newest record; 0 for none."""
        row = self._database.row("SELECT coalesce(max(position), 0) AS position FROM records")
        return int(row["position"]) if row else 0

    def _raw(
        self, sql: str, parameters: tuple[Any, ...], limit: int | None = None, *, most_bytes: float = math.inf
    ) -> list[RawRecord]:
        with self._database.reading() as connection:
            return raw_records(connection.execute(sql, parameters), limit=limit, most_bytes=most_bytes)


def _letters(intake: Intake, new: Sequence[IncomingRecord]) -> list[DeadLetter]:
    """Return what to keep as dead letters: of a record that is objected to, once."""
    if not intake.objections:
        return list(intake.letters)
    numbers = {(record.device_id, record.head.stream, record.head.number) for record in new}
    return [*intake.letters, *(letter for key, letter in intake.objections.items() if key in numbers)]


def _readable(records: Iterable[RawRecord]) -> list[StoredRecord]:
    """Return records with their bodies; a window that cannot be read counts for nothing (`hub.telemetry`)."""
    stored = []
    for raw in records:
        with suppress(InvalidMessage):
            stored.append(stored_record(raw))
    return stored
