"""Captured samples, their policies, the last number taken of each stream; an index of hot devices."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m012_samples(db: sqlite_utils.Database) -> None:
    """Create what keeps samples, and find throttled devices by an index."""
    table(db, "captures").create(
        {"device_id": str, "model": str, "policy": str, "at_s": float, "by": str},
        pk=("device_id", "model"),
        not_null={"policy", "at_s", "by"},
    )
    table(db, "samples").create(
        {
            "number": int,
            "device_id": str,
            "model": str,
            "version": int,
            "at_s": float,
            "received_at_s": float,
            "reason": str,
            "feature": str,
            "redaction": str,
            "category": int,
            "confidence": float,
            "size_bytes": int,
            "data": bytes,
        },
        pk="number",
        not_null={"device_id", "model", "version", "at_s", "received_at_s", "reason", "size_bytes", "data"},
    )
    table(db, "samples").create_index(["device_id", "model", "received_at_s"])
    table(db, "samples").create_index(["model", "number"])
    table(db, "samples").create_index(["received_at_s"])
    table(db, "sample_streams").create(
        {"device_id": str, "stream": str, "last_number": int, "at_s": float},
        pk=("device_id", "stream"),
        not_null={"last_number", "at_s"},
    )
    db.execute(
        "CREATE INDEX throttled_devices ON devices (device_id)"
        " WHERE json_extract(reported, '$.board.throttled') > 0"
    )
