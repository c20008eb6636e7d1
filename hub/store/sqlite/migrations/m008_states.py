"""State rows: how each device is, judged and counted; and marks on the devices that are to be judged anew.

The marks are set by triggers, in the transaction of whatever changes what health rests on, so that no
statement that changes it can forget to. ``silent`` spares heartbeats a comparison of times: it is set while
a device counts as OFFLINE though it has not said that it left.
"""

from __future__ import annotations

import msgspec
import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table

# Not INSERT OR IGNORE: in a trigger, what the outer statement says of conflicts holds instead.
_MARK = (
    "INSERT INTO marked_devices (device_id) SELECT {row}.device_id"
    " WHERE NOT EXISTS (SELECT 1 FROM marked_devices WHERE device_id = {row}.device_id)"
)
_REPORTED = "json_extract({row}.reported, '$.models')"
_DEVICE_CHANGED = " OR ".join(
    (
        "OLD.online IS NOT NEW.online",
        "(OLD.silent AND OLD.last_seen_at_s IS NOT NEW.last_seen_at_s)",
        "OLD.attributes IS NOT NEW.attributes",
        "OLD.capabilities IS NOT NEW.capabilities",
        f"{_REPORTED.format(row='OLD')} IS NOT {_REPORTED.format(row='NEW')}",
    )
)


@migrations()
def m008_states(db: sqlite_utils.Database) -> None:
    """Create states, their counts, and what keeps them up to date."""
    _create_deployments(db)
    _create_states(db)
    _create_counts(db)
    _create_marks(db)


def _create_deployments(db: sqlite_utils.Database) -> None:
    table(db, "last_deployments").create(
        {"device_id": str, "model": str, "state": str, "cause": str},
        pk=("device_id", "model"),
        not_null={"state"},
    )
    newest = db.execute(
        "SELECT device_id, model, data FROM records WHERE position IN"
        " (SELECT max(position) FROM records WHERE kind = 'deployment' GROUP BY device_id, model)"
    )
    for device_id, model, data in newest.fetchall():
        report = msgspec.msgpack.decode(data)["body"]
        cause = report.get("cause")
        db.execute(
            "INSERT INTO last_deployments (device_id, model, state, cause) VALUES (?, ?, ?, ?)",
            [device_id, model, report["state"], cause and msgspec.json.encode(cause).decode()],
        )


def _create_states(db: sqlite_utils.Database) -> None:
    table(db, "devices").add_column("silent", int, not_null_default=0)
    table(db, "device_states").create(
        {
            "device_id": str,
            "status": str,
            "reasons": str,
            "traits": str,
            "holds_until_s": float,
        },
        pk="device_id",
        not_null={"status", "reasons", "traits"},
    )
    db.execute(
        "CREATE INDEX judgements_that_end ON device_states (holds_until_s) WHERE holds_until_s IS NOT NULL"
    )
    db.execute(
        "CREATE INDEX unwell_devices ON device_states (device_id) WHERE status IN ('UNHEALTHY', 'OFFLINE')"
    )
    table(db, "model_states").create(
        {
            "device_id": str,
            "model": str,
            "version": int,
            "desired_version": int,
            "deployment": str,
            "predictions": int,
            "errors": int,
            "drifting": str,
        },
        pk=("device_id", "model"),
        not_null={"predictions", "errors", "drifting"},
    )
    db.execute("CREATE INDEX drifting_devices ON model_states (model, device_id) WHERE drifting != '[]'")
    table(db, "state_rules").create({"id": int, "rules": str}, pk="id", not_null={"rules"})


def _create_counts(db: sqlite_utils.Database) -> None:
    # Narrow, and read in the order of their keys: without row ids, which sqlite-utils cannot say.
    db.execute(
        "CREATE TABLE trait_counts (attribute TEXT, model TEXT, value TEXT, status TEXT,"
        " devices INTEGER NOT NULL, PRIMARY KEY (attribute, model, value, status)) WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE version_counts (model TEXT, version INTEGER, status TEXT, as_desired INTEGER,"
        " drifting INTEGER, devices INTEGER NOT NULL, predictions INTEGER NOT NULL, errors INTEGER NOT NULL,"
        " PRIMARY KEY (model, version, status, as_desired, drifting)) WITHOUT ROWID"
    )


def _create_marks(db: sqlite_utils.Database) -> None:
    db.execute("CREATE TABLE marked_devices (device_id TEXT PRIMARY KEY) WITHOUT ROWID")
    marks_new, marks_old = _MARK.format(row="NEW"), _MARK.format(row="OLD")
    db.execute(f"CREATE TRIGGER device_came AFTER INSERT ON devices BEGIN {marks_new}; END")
    db.execute(
        f"CREATE TRIGGER device_changed AFTER UPDATE ON devices WHEN {_DEVICE_CHANGED} BEGIN {marks_new}; END"
    )
    for name in ("desired", "last_deployments", "totals", "drift", "quarantines"):
        db.execute(f"CREATE TRIGGER {name}_came AFTER INSERT ON {name} BEGIN {marks_new}; END")
        db.execute(f"CREATE TRIGGER {name}_changed AFTER UPDATE ON {name} BEGIN {marks_new}; END")
        db.execute(f"CREATE TRIGGER {name}_went AFTER DELETE ON {name} BEGIN {marks_old}; END")
