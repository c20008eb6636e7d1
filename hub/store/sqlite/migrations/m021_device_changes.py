"""Changes of what devices are get numbers, so that nobody looks again at those that are what they were.

What targets ask beside that (health, drift, connections, versions) changes all the time and has no number.
"""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations

# A writer is alone, so numbers are committed in their order, and no device is ever deleted.
_NUMBER = (
    "UPDATE devices SET changed = (SELECT max(changed) + 1 FROM devices) WHERE device_id = {row}.device_id"
)
_IS_ANOTHER = "OLD.attributes IS NOT NEW.attributes OR OLD.capabilities IS NOT NEW.capabilities"


@migrations()
def m021_device_changes(db: sqlite_utils.Database) -> None:
    """Number the devices that there are, and let triggers number what comes."""
    db.execute("ALTER TABLE devices ADD COLUMN changed INTEGER NOT NULL DEFAULT 0")
    db.execute("UPDATE devices SET changed = rowid")
    db.execute("CREATE INDEX devices_by_change ON devices (changed, device_id)")
    numbers_new, numbers_old = _NUMBER.format(row="NEW"), _NUMBER.format(row="OLD")
    for name, happens in (
        ("device_came_numbered", "INSERT ON devices"),
        ("device_changed_numbered", f"UPDATE OF attributes, capabilities ON devices WHEN {_IS_ANOTHER}"),
        ("tag_came_numbered", "INSERT ON tags"),
    ):
        db.execute(f"CREATE TRIGGER {name} AFTER {happens} BEGIN {numbers_new}; END")
    db.execute(f"CREATE TRIGGER tag_went_numbered AFTER DELETE ON tags BEGIN {numbers_old}; END")
