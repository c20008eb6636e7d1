"""Which values of an attribute are cohorts of their own."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m018_cohort_values(db: sqlite_utils.Database) -> None:
    """Those that there are sums of, are; who brought them is not known."""
    table(db, "cohort_values").create(
        {"key": str, "value": str, "device_id": str, "last_s": int},
        pk=("key", "value"),
        not_null={"device_id", "last_s"},
    )
    db.execute(
        "INSERT INTO cohort_values (key, value, device_id, last_s)"
        " SELECT key, value, '', max(start_s) FROM rollups WHERE key NOT IN ('all', 'device')"
        " GROUP BY key, value"
    )
