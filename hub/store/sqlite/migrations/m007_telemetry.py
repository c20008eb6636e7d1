"""Windows added up over time; what is counted up to where.

Totals and drift were kept apart until now, each up to a position of its own. They are counted anew, from the
records, which are all still there.
"""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m007_telemetry(db: sqlite_utils.Database) -> None:
    """Create what the telemetry pass keeps."""
    for name in ("totals", "drift", "positions"):
        table(db, name).delete_where()
    table(db, "totals").add_column("received_at_s", float, not_null_default=0.0)
    table(db, "drift_blocks").create(
        {"device_id": str, "model": str, "version": int, "body": bytes},
        pk=("device_id", "model", "version"),
        not_null={"body"},
    )
    table(db, "strong_evidence").create(
        {"device_id": str, "model": str, "version": int, "evidence": bytes},
        pk=("device_id", "model", "version"),
        not_null={"evidence"},
    )
    table(db, "desired").create_index(["model", "version"])
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
