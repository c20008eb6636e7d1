"""Windows that came together share a row; which numbers were received is a set for each stream; floods.

How records stand in their rows says `hub.store.sqlite.packs`.
"""

from __future__ import annotations

from itertools import groupby

import msgspec
import sqlite_utils

from hub.store.received import Received
from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m006_packed_records(db: sqlite_utils.Database) -> None:
    """Move records to their new form, bound dead letters, and add quarantines."""
    _create_streams(db)
    _move_records(db)
    _bound_dead_letters(db)
    table(db, "quarantines").create(
        {"device_id": str, "since_s": float, "until_s": float},
        pk="device_id",
        not_null={"since_s", "until_s"},
    )


def _create_streams(db: sqlite_utils.Database) -> None:
    table(db, "streams").create(
        {"id": int, "device_id": str, "stream": str, "received": bytes},
        pk="id",
        not_null={"device_id", "stream", "received"},
    )
    table(db, "streams").create_index(["device_id", "stream"], unique=True)
    rows = db.execute("SELECT device_id, stream, number FROM records ORDER BY device_id, stream, number")
    for (device_id, stream), numbers in groupby(rows.fetchall(), key=lambda row: (row[0], row[1])):
        received = Received.of(number for _, _, number in numbers)
        db.execute(
            "INSERT INTO streams (device_id, stream, received) VALUES (?, ?, ?)",
            [device_id, stream, received.to_bytes()],
        )


def _move_records(db: sqlite_utils.Database) -> None:
    db.execute("ALTER TABLE records RENAME TO old_records")
    table(db, "records").create(
        {"position": int, "device_id": str, "received_at_s": float, "model": str, "kind": str, "data": bytes},
        pk="position",
        not_null={"received_at_s", "kind", "data"},
    )
    old = db.execute(
        "SELECT position, device_id, received_at_s, model, kind, stream, number, body FROM old_records"
    )
    for *same, stream, number, body in old:
        data = msgspec.msgpack.encode({"stream": stream, "number": number, "body": msgspec.Raw(body)})
        if same[-1] == "window":
            same[1], data = None, msgspec.msgpack.encode((same[1].encode(), data))
        db.execute(
            "INSERT INTO records (position, device_id, received_at_s, model, kind, data)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [*same, data],
        )
    db.execute("DROP TABLE old_records")
    db.execute("CREATE INDEX records_of_model ON records (model, position)")
    db.execute(
        "CREATE INDEX records_of_device ON records (device_id, kind, position) WHERE device_id NOT NULL"
    )


def _bound_dead_letters(db: sqlite_utils.Database) -> None:
    table(db, "dead_letters").add_column("device_id", str)
    table(db, "dead_letters").create_index(["device_id", "id"])
    table(db, "counts").create({"name": str, "total": int}, pk="name", not_null={"total"})
    db.execute("INSERT INTO counts (name, total) SELECT 'dead_letters', count(*) FROM dead_letters")
