"""Which records were received: for each stream of a device the set of its numbers, see `hub.store.received`.

Sets that were used stay in memory, where they are changed in place. If the transaction of a change fails, the
sets that it touched are forgotten, and read again when they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlite_utils

from hub.store.received import Received
from hub.store.rows import IncomingRecord

KEPT_IN_MEMORY = 100_000
"""Sets, of a few hundred bytes each."""
MOST_RANGES_IN_MEMORY = 512
"""Of one set; only hostile devices leave so many gaps for long. Larger sets are read when they are needed."""
KEPT_FOR_EACH_DEVICE = 64
"""Streams; a device begins another when its outbox is lost. The one that was begun first is forgotten."""

_Key = tuple[str, str]


class Streams:
    """Knows every number that was received. For the store's writer alone."""

    def __init__(self) -> None:
        self._sets: dict[_Key, tuple[int, Received]] = {}
        self._touched: dict[_Key, tuple[int, Received]] = {}

    def new_of(self, db: sqlite_utils.Database, records: Sequence[IncomingRecord]) -> list[IncomingRecord]:
        """Return the records that were not received before; within a transaction they now are."""
        sets, touched, new = self._sets, self._touched, []
        touched.clear()
        received, device_id, stream = Received(), "", ""
        for record in records:
            head = record.head
            if head.stream != stream or record.device_id != device_id:
                device_id, stream = key = record.device_id, head.stream
                held = touched.get(key)
                if held is None:
                    held = touched[key] = sets.get(key) or self._loaded(db, key)
                received = held[1]
            if received.add(head.number):
                new.append(record)
        if new:
            db.conn.executemany(
                "UPDATE streams SET received = ? WHERE id = ?",
                [(received.to_bytes(), number) for number, received in touched.values()],
            )
        return new

    def committed(self) -> None:
        """Keep what `new_of` changed: its transaction is durable."""
        for key, held in self._touched.items():
            if len(held[1]) <= MOST_RANGES_IN_MEMORY:
                self._sets[key] = held
            else:
                self._sets.pop(key, None)
        self._touched.clear()
        while len(self._sets) > KEPT_IN_MEMORY:
            del self._sets[next(iter(self._sets))]

    def failed(self) -> None:
        """Forget what `new_of` changed: its transaction was undone."""
        for key in self._touched:
            self._sets.pop(key, None)
        self._touched.clear()

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
        forgotten = db.execute(
            "DELETE FROM streams WHERE device_id = ? AND id NOT IN"
            " (SELECT id FROM streams WHERE device_id = ? ORDER BY id DESC LIMIT ?) RETURNING stream",
            [key[0], key[0], KEPT_FOR_EACH_DEVICE],
        )
        for (stream,) in forgotten.fetchall():
            self._sets.pop((key[0], stream), None)
        return int(made.lastrowid or 0), empty
