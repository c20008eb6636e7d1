"""What operators wish of devices, what they did, and the diagnostic bundles that came."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m003_wishes_and_diagnostics(db: sqlite_utils.Database) -> None:
    """What operators wish of devices, what they did, and the diagnostic bundles that came."""
    of_device = [("device_id", "devices", "device_id")]
    table(db, "wishes").create(
        {
            "device_id": str,
            "log_level": str,
            "held_by": str,
            "held_reason": str,
            "held_at_s": float,
            "diagnostics": str,
        },
        pk="device_id",
        foreign_keys=of_device,
    )
    table(db, "actions").create(
        {"number": int, "device_id": str, "at_s": float, "by": str, "text": str},
        pk="number",
        not_null={"device_id", "at_s", "by", "text"},
        foreign_keys=of_device,
    )
    table(db, "actions").create_index(["device_id", "number"])
    table(db, "diagnostics").create(
        {
            "number": int,
            "device_id": str,
            "request_id": str,
            "at_s": float,
            "received_at_s": float,
            "data": bytes,
        },
        pk="number",
        not_null={"device_id", "request_id", "at_s", "received_at_s", "data"},
    )
    table(db, "diagnostics").create_index(["device_id", "request_id"], unique=True)
