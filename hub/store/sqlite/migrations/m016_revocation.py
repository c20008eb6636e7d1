"""Versions can be revoked: when, by whom and why."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m016_revocation(db: sqlite_utils.Database) -> None:
    """No version of before was revoked."""
    table(db, "versions").add_column("revoked", str)
