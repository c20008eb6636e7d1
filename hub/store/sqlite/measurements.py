"""What devices measured of a version's variants: the newest of each device and bundle."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import sqlite_utils

from fleet.protocol.records import Measurement
from hub.store.rows import IncomingRecord, MeasurementRow
from hub.store.sqlite.database import Part


class SqliteMeasurements(Part):
    """Implements `hub.store.protocols.MeasurementStore`."""

    def measurements(
        self, *, manifest_sha256: str | None = None, device_id: str | None = None
    ) -> list[MeasurementRow]:
        """Return what was measured of a bundle, by a device, or both, by device and model."""
        rows = self._database.rows(
            "SELECT device_id, received_at_s, body FROM measurements"
            " WHERE (? IS NULL OR manifest_sha256 = ?) AND (? IS NULL OR device_id = ?)"
            " ORDER BY device_id, model, version, manifest_sha256",
            (manifest_sha256, manifest_sha256, device_id, device_id),
        )
        return [
            MeasurementRow(
                device_id=row["device_id"],
                received_at_s=row["received_at_s"],
                measurement=msgspec.msgpack.decode(row["body"], type=Measurement),
            )
            for row in rows
        ]


def keep_measurements(db: sqlite_utils.Database, records: Iterable[IncomingRecord]) -> None:
    """Keep the measurements among new records in place of older ones, in the caller's transaction.

    Records can come late, so the device's own time says which is newer.
    """
    for incoming in records:
        body = incoming.head.body
        if isinstance(body, Measurement):
            db.execute(
                "INSERT INTO measurements"
                " (device_id, manifest_sha256, model, version, at_s, received_at_s, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (device_id, manifest_sha256) DO UPDATE SET"
                " at_s = excluded.at_s, received_at_s = excluded.received_at_s, body = excluded.body"
                " WHERE excluded.at_s >= at_s",
                [
                    incoming.device_id,
                    body.manifest_sha256,
                    body.model,
                    body.version,
                    body.at_s,
                    incoming.received_at_s,
                    msgspec.msgpack.encode(body),
                ],
            )
