"""Windows added up over time."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m007_telemetry(db: sqlite_utils.Database) -> None:
    """Create what the telemetry pass keeps."""
    table(db, "rollups").create(
        {
            "key": str,
            "value": str,
            "model": str,
            "version": int,
            "duration_s": int,
            "start_s": int,
            "windows": int,
            "heard": bytes,
            "body": bytes,
        },
        pk=("model", "key", "duration_s", "value", "start_s", "version"),
        not_null={"windows", "heard", "body"},
    )
    table(db, "rollups").create_index(["duration_s", "start_s"])
