"""How long orders ask for a shadow, and what devices reported of theirs, added up."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m005_shadows(db: sqlite_utils.Database) -> None:
    """How long orders ask for a shadow, and what devices reported of theirs, added up."""
    table(db, "desired").add_column("shadow_s", int, not_null_default=0)
    table(db, "shadows").create(
        {
            "device_id": str,
            "deployment_id": str,
            "manifest_sha256": str,
            "active_version": int,
            "model": str,
            "version": int,
            "body": bytes,
        },
        pk=("device_id", "deployment_id", "manifest_sha256", "active_version"),
        not_null={"model", "version", "body"},
    )
    table(db, "shadows").create_index(["model", "version"])
