"""A rollout's summary says how many ways back led back, and how many did not."""

from __future__ import annotations

import msgspec
import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations

_COUNTS = (
    "SELECT rollout,"
    " sum(back_state = CASE WHEN previous_version IS NULL THEN 'REMOVED' ELSE 'SUCCEEDED' END),"
    " count(*) FROM rollout_devices WHERE back_state IN"
    " ('SUCCEEDED', 'FAILED', 'ROLLED_BACK', 'REJECTED', 'TIMED_OUT', 'CANCELED', 'REMOVED') GROUP BY rollout"
)


@migrations()
def m019_ways_back_counted(db: sqlite_utils.Database) -> None:
    """Count those of the rollouts that there are."""
    for number, restored, ended in db.execute(_COUNTS).fetchall():
        (text,) = db.execute("SELECT state FROM rollouts WHERE number = ?", [number]).fetchone()
        state = {**msgspec.json.decode(text), "restored": restored, "unrestored": ended - restored}
        db.execute(
            "UPDATE rollouts SET state = ? WHERE number = ?", [msgspec.json.encode(state).decode(), number]
        )
