"""What orders leave to devices to choose, and what devices measured."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m004_choice_of_variants(db: sqlite_utils.Database) -> None:
    """What orders leave to devices to choose, and what devices measured."""
    table(db, "desired").add_column("alternatives", str, not_null_default="[]")
    table(db, "desired").add_column("policy", str, not_null_default="first")
    table(db, "measurements").create(
        {
            "device_id": str,
            "manifest_sha256": str,
            "model": str,
            "version": int,
            "at_s": float,
            "received_at_s": float,
            "body": bytes,
        },
        pk=("device_id", "manifest_sha256"),
        not_null={"model", "version", "at_s", "received_at_s", "body"},
    )
    table(db, "measurements").create_index(["manifest_sha256"])
