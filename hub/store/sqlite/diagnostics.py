"""Diagnostic bundles that devices sent: the newest few of each device."""

from __future__ import annotations

from collections.abc import Iterable

import sqlite_utils

from fleet.protocol.errors import NotFound
from fleet.protocol.records import Diagnostics
from hub.store.rows import DiagnosticsRow, IncomingRecord
from hub.store.sqlite.database import Part

KEPT_FOR_EACH_DEVICE = 5


class SqliteDiagnostics(Part):
    """Implements `hub.store.protocols.DiagnosticsStore`."""

    def diagnostics(self, device_id: str) -> list[DiagnosticsRow]:
        """Return what there is of a device, newest first, without the bytes."""
        rows = self._database.rows(
            "SELECT request_id, at_s, received_at_s, length(data) AS size_bytes FROM diagnostics"
            " WHERE device_id = ? ORDER BY number DESC",
            (device_id,),
        )
        return [DiagnosticsRow(**row) for row in rows]

    def diagnostics_data(self, device_id: str, request_id: str) -> bytes:
        """Return a bundle's bytes; raises `NotFound`."""
        row = self._database.row(
            "SELECT data FROM diagnostics WHERE device_id = ? AND request_id = ?", (device_id, request_id)
        )
        if row is None:
            raise NotFound(
                f"There is no diagnostic bundle {request_id!r:.80} of {device_id!r:.80}.",
                remedy="`muster device show` lists those there are; a device answers when it is connected.",
            )
        return bytes(row["data"])


def keep_diagnostics(db: sqlite_utils.Database, records: Iterable[IncomingRecord]) -> None:
    """Keep the bundles among new records in place of each device's oldest, in the caller's transaction."""
    for incoming in records:
        body = incoming.head.body
        if not isinstance(body, Diagnostics):
            continue
        db.execute(
            "INSERT OR REPLACE INTO diagnostics (device_id, request_id, at_s, received_at_s, data)"
            " VALUES (?, ?, ?, ?, ?)",
            [incoming.device_id, body.request_id, body.at_s, incoming.received_at_s, body.data],
        )
        db.execute(
            "DELETE FROM diagnostics WHERE device_id = ? AND number NOT IN"
            " (SELECT number FROM diagnostics WHERE device_id = ? ORDER BY number DESC LIMIT ?)",
            [incoming.device_id, incoming.device_id, KEPT_FOR_EACH_DEVICE],
        )
