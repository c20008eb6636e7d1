"""Which records were received: for each stream of a device the set of its numbers, see `hub.store.received`.

The sets that were used last stay in memory. A change is made on a copy and takes the place of the set when
its transaction has committed, so that a failed transaction leaves nothing behind.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import sqlite_utils

from hub.store.received import Received
from hub.store.rows import IncomingRecord

KEPT_IN_MEMORY = 100_000
"""Sets, of a few hundred bytes each."""
KEPT_FOR_EACH_DEVICE = 64
"""Streams; a device begins another when its outbox is lost. The one that was begun first is forgotten."""

_Key = tuple[str, str]


class Streams:
    """Knows every number that was received. For the store's writer alone."""

    def __init__(self) -> None:
        self._sets: OrderedDict[_Key, tuple[int, Received]] = OrderedDict()
        self._changed: dict[_Key, tuple[int, Received]] = {}

    def new_of(self, db: sqlite_utils.Database, records: Sequence[IncomingRecord]) -> list[IncomingRecord]:
        """Return the records that were not received before; within a transaction they now are."""
        self._changed = {}
        changed, new = self._changed, []
        for record in records:
            key = (record.device_id, record.head.stream)
            held = changed.get(key)
            if held is None:
                number, received = self._sets.get(key) or self._loaded(db, key)
                held = changed[key] = (number, received.copy())
            if held[1].add(record.head.number):
                new.append(record)
        if new:
            db.conn.executemany(
                "UPDATE streams SET received = ? WHERE id = ?",
                [(received.to_bytes(), number) for number, received in changed.values()],
            )
        return new

    def committed(self) -> None:
        """Keep what `new_of` changed: its transaction is durable."""
        for key, held in self._changed.items():
            self._sets[key] = held
            self._sets.move_to_end(key)
        self._changed = {}
        while len(self._sets) > KEPT_IN_MEMORY:
            self._sets.popitem(last=False)

    def _loaded(self, db: sqlite_utils.Database, key: _Key) -> tuple[int, Received]:
        row = db.execute(
            "SELECT id, received FROM streams WHERE device_id = ? AND stream = ?", list(key)
        ).fetchone()
        if row is not None:
            return row[0], Received.from_bytes(row[1])
        empty = Received()
        made = db.execute(
            "INSERT INTO streams (device_id, stream, received) VALUES (?, ?, ?)", [*key, empty.to_bytes()]
        )
        db.execute(
            "DELETE FROM streams WHERE device_id = ? AND id NOT IN"
            " (SELECT id FROM streams WHERE device_id = ? ORDER BY id DESC LIMIT ?)",
            [key[0], key[0], KEPT_FOR_EACH_DEVICE],
        )
        return int(made.lastrowid or 0), empty
