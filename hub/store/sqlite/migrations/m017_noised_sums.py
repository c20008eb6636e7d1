"""Counts with noise: the wish for it, and what devices sent, added up by version and day."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m017_noised_sums(db: sqlite_utils.Database) -> None:
    """Noised windows have sums of their own; no device stands in them."""
    table(db, "wishes").add_column("count_noise", int)
    table(db, "noised_sums").create(
        {"model": str, "version": int, "start_s": int, "body": bytes},
        pk=("model", "version", "start_s"),
        not_null={"body"},
    )
    table(db, "noised_sums").create_index(["start_s"])
