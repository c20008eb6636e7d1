"""Drift alarms, as the last look left them, and the evidence among them that matters to others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import sqlite_utils

from fleet.drift.alarms import LEAST_THRESHOLD
from hub.store.rows import DriftRow
from hub.store.sqlite.database import Part
from hub.store.telemetry_rows import StrongEvidence, VersionKey

_ROWS = msgspec.msgpack.Decoder(DriftRow)  # made once: two threads that were the first to use a type crash
_VALUES = msgspec.msgpack.Decoder(tuple[float, ...])


class SqliteDrift(Part):
    """Implements `hub.store.protocols.DriftStore`."""

    def drift(self, *, model: str | None = None, device_id: str | None = None) -> list[DriftRow]:
        """Return the alarms of devices and versions that were looked at."""
        rows = self._database.rows(
            "SELECT body FROM drift WHERE (? IS NULL OR model = ?) AND (? IS NULL OR device_id = ?)"
            " ORDER BY device_id, model, version",
            (model, model, device_id, device_id),
        )
        return [_ROWS.decode(row["body"]) for row in rows]

    def drift_page(
        self,
        *,
        model: str | None = None,
        devices: Sequence[str] | None = None,
        current: bool = False,
        alarms: bool = False,
        after: str = "",
        limit: int = 100,
    ) -> list[DriftRow]:
        """Return the alarms of some devices, see `hub.store.protocols.DriftStore.drift_page`."""
        source = "drift JOIN model_states USING (device_id, model, version)" if current else "drift"
        tests = ["model = :model"] if model is not None else []
        tests += ["device_id IN (SELECT value FROM json_each(:devices))"] if devices is not None else []
        tests += ["drifting != '[]'"] if current and alarms else []
        chosen = " AND ".join(["device_id > :after", *tests])
        sql = (
            f"SELECT body FROM {source} WHERE {chosen} AND device_id <="  # noqa: S608 - only texts from above
            f" (SELECT max(device_id) FROM (SELECT DISTINCT device_id FROM {source} WHERE {chosen}"
            " ORDER BY device_id LIMIT :limit)) ORDER BY device_id, model, version"
        )
        listed = None if devices is None else msgspec.json.encode(devices).decode()
        asked = {"model": model, "devices": listed, "after": after, "limit": limit}
        with self._database.reading() as connection:
            return [_ROWS.decode(body) for (body,) in connection.execute(sql, asked)]

    def drift_of(self, which: Iterable[VersionKey]) -> dict[VersionKey, DriftRow]:
        """Return those of the alarms that there are."""
        sql = "SELECT body FROM drift WHERE device_id = ? AND model = ? AND version = ?"
        with self._database.reading() as connection:
            found = {key: connection.execute(sql, key).fetchone() for key in which}
        return {key: _ROWS.decode(row[0]) for key, row in found.items() if row}

    def strong_evidence(self) -> list[StrongEvidence]:
        """Return all evidence that may be a discovery, of versions that the devices are to run."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT device_id, model, version, evidence FROM strong_evidence"
                " JOIN desired USING (device_id, model, version)"
            ).fetchall()
        return [
            StrongEvidence(device_id, model, version, _VALUES.decode(evidence))
            for device_id, model, version, evidence in rows
        ]

    def to_run(self, which: Iterable[VersionKey]) -> set[VersionKey]:
        """Return those of the versions that their devices are to run."""
        sql = "SELECT 1 FROM desired WHERE device_id = ? AND model = ? AND version = ?"
        with self._database.reading() as connection:
            return {key for key in which if connection.execute(sql, key).fetchone()}

    def devices_to_run(self, model: str) -> int:
        """Return how many devices are to run a model."""
        row = self._database.row("SELECT count(*) AS number FROM desired WHERE model = ?", (model,))
        return int(row["number"]) if row else 0


def put_drift(db: sqlite_utils.Database, rows: Iterable[DriftRow]) -> None:
    """Store alarms after a look, in the caller's transaction."""
    for row in rows:
        key = [row.device_id, row.model, row.version]
        db.execute(
            "INSERT INTO drift (device_id, model, version, body) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (device_id, model, version) DO UPDATE SET body = excluded.body",
            [*key, msgspec.msgpack.encode(row)],
        )
        strong = [value for value in row.alarm.evidence.values() if value >= LEAST_THRESHOLD]
        if strong:
            db.execute(
                "INSERT OR REPLACE INTO strong_evidence (device_id, model, version, evidence)"
                " VALUES (?, ?, ?, ?)",
                [*key, msgspec.msgpack.encode(strong)],
            )
        else:
            db.execute("DELETE FROM strong_evidence WHERE device_id = ? AND model = ? AND version = ?", key)
