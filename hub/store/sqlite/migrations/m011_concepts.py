"""Tests for concept drift."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m011_concepts(db: sqlite_utils.Database) -> None:
    """Tests for concept drift, of a version on each device and on all together."""
    table(db, "concepts").create(
        {"device_id": str, "model": str, "version": int, "raised": int, "evidence": float, "body": bytes},
        pk=("model", "device_id", "version"),
        not_null={"raised", "evidence", "body"},
    )
    table(db, "concepts").create_index(["evidence"])
