"""Bookkeeping of drift alarms."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hub.store.rows import DriftRow
from hub.store.sqlite.database import Part

_READER = "drift"
_DECODER = msgspec.msgpack.Decoder(DriftRow)  # made once: two threads that were the first to use a type crash


class SqliteDrift(Part):
    """Implements `hub.store.protocols.DriftStore`."""

    def drift_position(self) -> int:
        """Return how far drift has read the records."""
        row = self._database.row("SELECT position FROM positions WHERE reader = ?", (_READER,))
        return int(row["position"]) if row else 0

    def save_drift(self, position: int, rows: Sequence[DriftRow]) -> None:
        """Store the rows and the position that they include."""
        with self._database.writing() as db:
            db.execute(
                "INSERT INTO positions (reader, position) VALUES (?, ?)"
                " ON CONFLICT (reader) DO UPDATE SET position = excluded.position",
                [_READER, position],
            )
            for row in rows:
                db.execute(
                    "INSERT OR REPLACE INTO drift (device_id, model, version, body) VALUES (?, ?, ?, ?)",
                    [row.device_id, row.model, row.version, msgspec.msgpack.encode(row)],
                )

    def drift(self, *, model: str | None = None, device_id: str | None = None) -> list[DriftRow]:
        """Return drift bookkeeping."""
        rows = self._database.rows(
            "SELECT * FROM drift WHERE (? IS NULL OR model = ?) AND (? IS NULL OR device_id = ?)"
            " ORDER BY device_id, model, version",
            (model, model, device_id, device_id),
        )
        return [_DECODER.decode(row["body"]) for row in rows]
