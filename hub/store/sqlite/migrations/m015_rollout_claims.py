"""Several rollouts of a model may be under way, each with devices of its own."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations


@migrations()
def m015_rollout_claims(db: sqlite_utils.Database) -> None:
    """Create the table and fill it from the rollouts under way, of which each model has one at most."""
    db.execute(
        "CREATE TABLE rollout_claims (model TEXT NOT NULL, device_id TEXT NOT NULL, rollout INTEGER NOT NULL,"
        " PRIMARY KEY (model, device_id)) WITHOUT ROWID"
    )
    db.execute(
        "INSERT INTO rollout_claims SELECT rollouts.model, part.device_id, rollouts.number"
        " FROM rollouts JOIN rollout_devices AS part ON part.rollout = rollouts.number"
        " WHERE rollouts.is_open AND NOT"
        " (part.state = 'CANCELED' AND part.ordered_s IS NULL AND part.tries = 0)"
    )
    db.execute("DROP INDEX one_open_rollout")
    db.execute("CREATE INDEX open_rollouts ON rollouts (number) WHERE is_open")
