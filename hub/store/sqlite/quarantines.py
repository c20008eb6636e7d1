"""Devices of which nothing is taken for a while, because they said too much."""

from __future__ import annotations

from fleet.protocol.errors import Cause
from fleet.protocol.messages import Record, encode
from fleet.protocol.records import Incident
from hub.store.rows import QuarantineRow
from hub.store.sqlite.database import Part
from hub.store.sqlite.packs import INSERT

_HUBS_STREAM = "0" * 16
"""Of records that the hub writes itself; they are not counted among those received."""


class SqliteQuarantines(Part):
    """Implements `hub.store.protocols.QuarantineStore`."""

    def begin_quarantine(self, quarantine: QuarantineRow, cause: Cause) -> None:
        """Remember a quarantine and an incident of the device."""
        incident = Incident(quarantine.since_s, cause)
        record = Record(_HUBS_STREAM, int(1000 * quarantine.since_s), incident)
        with self._database.writing() as db:
            db.execute("DELETE FROM quarantines WHERE until_s < ?", [quarantine.since_s])
            db.execute(
                "INSERT OR REPLACE INTO quarantines (device_id, since_s, until_s) VALUES (?, ?, ?)",
                [quarantine.device_id, quarantine.since_s, quarantine.until_s],
            )
            db.execute(INSERT, [quarantine.device_id, quarantine.since_s, None, "incident", encode(record)])

    def end_quarantine(self, device_id: str) -> None:
        """Forget a device's quarantine, if there is one."""
        with self._database.writing() as db:
            db.execute("DELETE FROM quarantines WHERE device_id = ?", [device_id])

    def quarantines(self, *, device_id: str | None = None) -> list[QuarantineRow]:
        """Return the quarantines of all devices, or of one, by device."""
        rows = self._database.rows(
            "SELECT * FROM quarantines WHERE ? IS NULL OR device_id = ? ORDER BY device_id",
            (device_id, device_id),
        )
        return [QuarantineRow(**row) for row in rows]
