"""Messages that could not be taken in: the newest of each device and of all, and how many there ever were."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import sqlite_utils

from fleet.protocol.errors import Cause
from hub.store.rows import DeadLetter
from hub.store.sqlite.database import Part

DEFAULT_KEPT = 10_000
LARGEST_SHARE = 0.1
"""Of what is kept, that may be one device's: what others could not say has to stay visible."""
_COUNT = "dead_letters"


class SqliteDeadLetters(Part):
    """Implements `hub.store.protocols.DeadLetterStore`."""

    def add_dead_letters(self, letters: Iterable[DeadLetter], *, kept: int = DEFAULT_KEPT) -> None:
        """Keep messages that could not be taken in, in place of the oldest."""
        with self._database.writing() as db:
            keep_letters(db, list(letters), kept)

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """Return the newest dead letters, newest first."""
        rows = self._database.rows("SELECT * FROM dead_letters ORDER BY id DESC LIMIT ?", (limit,))
        return [
            DeadLetter(
                topic=row["topic"],
                received_at_s=row["received_at_s"],
                cause=msgspec.json.decode(row["cause"], type=Cause),
                payload=row["payload"],
                device_id=row["device_id"],
            )
            for row in rows
        ]

    def count_dead_letters(self) -> int:
        """Return how many dead letters there ever were."""
        row = self._database.row("SELECT total FROM counts WHERE name = ?", (_COUNT,))
        return int(row["total"]) if row else 0


def keep_letters(db: sqlite_utils.Database, letters: list[DeadLetter], kept: int) -> None:
    """Keep dead letters in the caller's transaction, in place of the oldest."""
    if not letters:
        return
    db.conn.executemany(
        "INSERT INTO dead_letters (topic, received_at_s, cause, payload, device_id) VALUES (?, ?, ?, ?, ?)",
        [
            (
                letter.topic,
                letter.received_at_s,
                msgspec.json.encode(letter.cause).decode(),
                letter.payload,
                letter.device_id,
            )
            for letter in letters
        ],
    )
    for device_id in {letter.device_id for letter in letters}:
        db.execute(
            "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE device_id IS ?"
            " ORDER BY id DESC LIMIT -1 OFFSET ?)",
            [device_id, max(1, int(kept * LARGEST_SHARE))],
        )
    db.execute(
        "DELETE FROM dead_letters WHERE id IN"
        " (SELECT id FROM dead_letters ORDER BY id DESC LIMIT -1 OFFSET ?)",
        [kept],
    )
    db.execute(
        "INSERT INTO counts (name, total) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET total = total + excluded.total",
        [_COUNT, len(letters)],
    )
