"""What the telemetry pass keeps: sums of all times, blocks between looks, and how far it has counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import sqlite_utils

from fleet.cohorts import cohorts_of
from fleet.protocol.errors import Conflict
from fleet.protocol.records import TelemetryWindow
from hub.store.rows import VersionTotals
from hub.store.sqlite.database import Part
from hub.store.sqlite.dead_letters import keep_letters
from hub.store.sqlite.drift import put_drift
from hub.store.sqlite.noised import put_noised
from hub.store.sqlite.rollups import put_rollups
from hub.store.telemetry_rows import DAY_S, CohortValue, TelemetryStep, VersionKey

READER = "telemetry"


class _Capabilities(msgspec.Struct):
    """What cohorts need of `fleet.protocol.messages.Capabilities`."""

    architecture: str
    hardware: str = ""


_WINDOWS = msgspec.msgpack.Decoder(TelemetryWindow)
_CAPABILITIES = msgspec.json.Decoder(_Capabilities)
_ATTRIBUTES = msgspec.json.Decoder(dict[str, str])

_READ_BY_ALL = (
    "SELECT min(position) AS position FROM ("
    "SELECT coalesce(position, 0) AS position FROM (VALUES ('telemetry'), ('quality')) AS readers"
    " LEFT JOIN positions ON positions.reader = readers.column1"
    " UNION ALL SELECT position FROM rollouts WHERE is_open)"
)
_OF_A_VERSION = ("totals", "drift_blocks", "drift", "strong_evidence", "concepts")
_LEFT = (
    "SELECT device_id, model, version FROM totals LEFT JOIN desired USING (device_id, model, version)"
    " WHERE totals.received_at_s < ? AND desired.deployment_id IS NULL LIMIT ?"
)


class SqliteTelemetry(Part):
    """Implements `hub.store.protocols.TelemetryStore`."""

    def telemetry_position(self) -> int:
        """Return up to which position records are counted."""
        row = self._database.row("SELECT position FROM positions WHERE reader = ?", (READER,))
        return int(row["position"]) if row else 0

    def save_telemetry(self, step: TelemetryStep) -> None:
        """Store what a step changes, see `hub.store.protocols.TelemetryStore.save_telemetry`."""
        with self._database.writing() as db:
            _advance(db, step)
            db.conn.executemany(
                "INSERT INTO totals (device_id, model, version, body, received_at_s) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (device_id, model, version)"
                " DO UPDATE SET body = excluded.body, received_at_s = excluded.received_at_s",
                [(*key, body, step.received_at_s) for key, body in step.totals.items()],
            )
            put_rollups(db, step.rollups)
            _put_blocks(db, step.blocks)
            put_drift(db, step.drift)
            put_noised(db, step.noised)
            _put_cohort_values(db, step.cohort_values)
            keep_letters(db, list(step.letters), step.letters_kept)

    def totals(self, *, device_id: str | None = None, model: str | None = None) -> list[VersionTotals]:
        """Return what devices reported about versions in all, without profiles."""
        rows = self._database.rows(
            "SELECT * FROM totals WHERE (? IS NULL OR device_id = ?) AND (? IS NULL OR model = ?)"
            " ORDER BY device_id, model, version",
            (device_id, device_id, model, model),
        )
        return [
            VersionTotals(row["device_id"], row["model"], row["version"], _WINDOWS.decode(row["body"]))
            for row in rows
        ]

    def sealed_totals(self, which: Iterable[VersionKey]) -> dict[VersionKey, bytes]:
        """Return those of the totals that there are, as they are stored."""
        return self._bodies(
            "SELECT body FROM totals WHERE device_id = ? AND model = ? AND version = ?", which
        )

    def drift_blocks(self, which: Iterable[VersionKey]) -> dict[VersionKey, bytes]:
        """Return those of the blocks that there are, as they are stored."""
        return self._bodies(
            "SELECT body FROM drift_blocks WHERE device_id = ? AND model = ? AND version = ?", which
        )

    def cohorts(self, device_ids: Sequence[str], group_by: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """Return the cohorts of those of the devices that there are."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT device_id, attributes, capabilities FROM devices"
                " WHERE device_id IN (SELECT value FROM json_each(?))",
                (msgspec.json.encode(device_ids).decode(),),
            ).fetchall()
        found: dict[str, Mapping[str, str]] = {}
        for device_id, attributes, capabilities in rows:
            said = _CAPABILITIES.decode(capabilities)
            found[device_id] = cohorts_of(
                _ATTRIBUTES.decode(attributes),
                hardware=said.hardware,
                architecture=said.architecture,
                group_by=group_by,
            )
        return found

    def cohort_values(self) -> list[CohortValue]:
        """Return the values that are cohorts of their own."""
        rows = self._database.rows("SELECT key, value, device_id, last_s FROM cohort_values")
        return [CohortValue(**row) for row in rows]

    def forget_cohort_values(self, *, before_s: float, limit: int) -> int:
        """Forget values that no device had since a day before a time."""
        return self._database.delete_some("cohort_values", "last_s < ?", [before_s - DAY_S], limit=limit)

    def read_by_all(self) -> int:
        """Return up to which position records are read by all that read them."""
        row = self._database.row(_READ_BY_ALL)
        return int(row["position"]) if row else 0

    def give_back_space(self) -> None:
        """Give the space of what was deleted back to the file system."""
        self._database.give_back_space()

    def forget_versions(self, *, before_s: float, limit: int) -> int:
        """Forget what devices are not to run any more, see `hub.store.protocols.TelemetryStore`."""
        with self._database.writing() as db:
            left = db.execute(_LEFT, [before_s, limit]).fetchall()
            for name in _OF_A_VERSION:
                db.conn.executemany(
                    f"DELETE FROM {name} WHERE device_id = ? AND model = ? AND version = ?",  # noqa: S608 - names
                    left,
                )
        return len(left)

    def _bodies(self, sql: str, which: Iterable[VersionKey]) -> dict[VersionKey, bytes]:
        with self._database.reading() as connection:
            found = {key: connection.execute(sql, key).fetchone() for key in which}
        return {key: row[0] for key, row in found.items() if row}


def _advance(db: sqlite_utils.Database, step: TelemetryStep) -> None:
    row = db.execute("SELECT position FROM positions WHERE reader = ?", [READER]).fetchone()
    known = row[0] if row else 0
    if known != step.previous:
        raise Conflict(f"Telemetry is counted up to {known}, and not up to {step.previous}.")
    db.execute(
        "INSERT INTO positions (reader, position) VALUES (?, ?)"
        " ON CONFLICT (reader) DO UPDATE SET position = excluded.position",
        [READER, step.position],
    )


def _put_cohort_values(db: sqlite_utils.Database, values: Sequence[CohortValue]) -> None:
    db.conn.executemany(
        "INSERT INTO cohort_values (key, value, device_id, last_s) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (key, value) DO UPDATE SET last_s = max(last_s, excluded.last_s)",
        values,
    )


def _put_blocks(db: sqlite_utils.Database, blocks: Mapping[VersionKey, bytes | None]) -> None:
    db.conn.executemany(
        "INSERT OR REPLACE INTO drift_blocks (device_id, model, version, body) VALUES (?, ?, ?, ?)",
        [(*key, body) for key, body in blocks.items() if body is not None],
    )
    db.conn.executemany(
        "DELETE FROM drift_blocks WHERE device_id = ? AND model = ? AND version = ?",
        [key for key, body in blocks.items() if body is None],
    )
