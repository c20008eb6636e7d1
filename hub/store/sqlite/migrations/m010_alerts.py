"""Alerts, the messages that tell receivers of them, and silences."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m010_alerts(db: sqlite_utils.Database) -> None:
    """Alerts, the messages that tell receivers of them, and silences."""
    table(db, "alerts").create(
        {
            "place": int,
            "key": str,
            "episode": int,
            "state": str,
            "severity": str,
            "ended_at_s": float,
            "body": bytes,
        },
        pk="place",
        not_null={"key", "episode", "state", "severity", "body"},
    )
    table(db, "alerts").create_index(["key", "episode"], unique=True)
    table(db, "alerts").create_index(["state"])
    table(db, "alert_messages").create(
        {
            "place": int,
            "key": str,
            "receiver": str,
            "alert": str,
            "occasion": str,
            "due_at_s": float,
            "outcome": str,
            "ended_at_s": float,
            "error": str,
            "body": bytes,
        },
        pk="place",
        not_null={"key", "receiver", "alert", "occasion", "due_at_s", "outcome", "error", "body"},
    )
    table(db, "alert_messages").create_index(["key"], unique=True)
    table(db, "alert_messages").create_index(["outcome", "receiver", "alert"])
    table(db, "alert_messages").create_index(["alert"])
    table(db, "silences").create(
        {"number": int, "ends_at_s": float, "body": bytes}, pk="number", not_null={"ends_at_s", "body"}
    )
