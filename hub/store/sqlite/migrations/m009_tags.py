"""What operators tagged devices with."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m009_tags(db: sqlite_utils.Database) -> None:
    """What operators tagged devices with."""
    table(db, "tags").create(
        {"device_id": str, "tag": str},
        pk=("device_id", "tag"),
        foreign_keys=[("device_id", "devices", "device_id")],
    )
