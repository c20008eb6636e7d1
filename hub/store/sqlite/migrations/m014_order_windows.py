"""When the version of an order may be swapped in, and whom the device asks before."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m014_order_windows(db: sqlite_utils.Database) -> None:
    """Orders of before have no window and ask everybody."""
    table(db, "desired").add_column("maintenance", str)
    table(db, "desired").add_column("mode", str, not_null_default="soft")
