"""The outbox: records that must reach the hub, in SQLite until the hub says that it has them.

Numbers rise for ever, also after rows are gone (``AUTOINCREMENT``); the stream's name is drawn when the
file is created, so that numbers of a new file are never taken for old ones. A record is marked as sent
before its first sending: one that the hub may have is never changed again.

Over its byte budget the outbox gives up the least first:

1. the two oldest windows of one version that were never sent become one, by addition;
2. the oldest windows are dropped;
3. the oldest of the other records are dropped.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from fleet.protocol.errors import InvalidMessage, NoSpace, StorageCorrupt, StorageError
from fleet.protocol.messages import Record, RecordBody, TelemetryWindow
from fleet.protocol.windows import merge_windows

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (stream TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS record (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    bundle TEXT,                -- of a window: its manifest's digest and variant; else NULL
    body BLOB NOT NULL,         -- MessagePack
    sent INTEGER NOT NULL DEFAULT 0
);
"""
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


class Entry(NamedTuple):
    """A record as it stands in the outbox."""

    number: int
    body: bytes


class Outbox:
    """The records that the hub has not acknowledged.

    Args:
        path: The database file; a damaged one is put aside and a new one begun.
        budget_bytes: How large all bodies together may grow.
    """

    def __init__(self, path: Path, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self.damage: StorageCorrupt | None = None
        """Set if the file was damaged when it was opened."""
        try:
            self._open(path)
        except sqlite3.DatabaseError as error:
            aside = path.with_name(path.name + ".damaged")
            log.warning("The outbox is damaged (%s) and was put aside as %s.", error, aside.name)
            path.replace(aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self.damage = StorageCorrupt(
                "The outbox was damaged; records that the hub did not have are lost."
            )
            self._open(path)

    def _open(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_SCHEMA)
        row = self._database.execute("SELECT stream FROM outbox").fetchone()
        if row is None:
            row = (secrets.token_hex(8),)
            self._database.execute("INSERT INTO outbox VALUES (?)", row)
        self.stream: str = row[0]
        self._size_bytes: int = self._database.execute(
            "SELECT coalesce(sum(length(body)), 0) FROM record"
        ).fetchone()[0]

    def __len__(self) -> int:
        count: int = self._database.execute("SELECT count(*) FROM record").fetchone()[0]
        return count

    def put(self, *bodies: RecordBody) -> None:
        """Keep records, all or none, until they are acknowledged.

        Raises:
            StorageError: They cannot be written.
        """
        with self._transaction():
            for body in bodies:
                self._insert(body)
            if self._size_bytes > self._budget_bytes:
                self._shrink()

    def take(self, limit: int, *, beside: set[int]) -> list[Entry]:
        """Return the oldest records to send, and mark them as sent.

        Args:
            limit: How many at most.
            beside: Numbers to leave out.

        Raises:
            StorageError: They cannot be marked, so must not be sent.
        """
        rows = self._database.execute(
            "SELECT number, body, sent FROM record ORDER BY number LIMIT ?", (limit + len(beside),)
        ).fetchall()
        chosen = [(Entry(number, body), sent) for number, body, sent in rows if number not in beside][:limit]
        fresh = [(entry.number,) for entry, sent in chosen if not sent]
        if fresh:
            with self._transaction():
                self._database.executemany("UPDATE record SET sent = 1 WHERE number = ?", fresh)
        return [entry for entry, _ in chosen]

    def record(self, entry: Entry) -> Record:
        """Return an entry in the form that is sent."""
        return Record(self.stream, entry.number, _decode(entry.body))

    def acknowledge(self, stream: str, numbers: tuple[int, ...]) -> None:
        """Forget records that the hub has; those of another stream are not ours.

        Raises:
            StorageError: It cannot be written.
        """
        if stream == self.stream:
            with self._transaction():
                for number in numbers:
                    self._delete(number)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _insert(self, body: RecordBody) -> None:
        data = msgspec.msgpack.encode(body)
        bundle = f"{body.manifest_sha256}.{body.variant}" if isinstance(body, TelemetryWindow) else None
        self._database.execute("INSERT INTO record (bundle, body) VALUES (?, ?)", (bundle, data))
        self._size_bytes += len(data)

    def _delete(self, number: int) -> None:
        row = self._database.execute(
            "DELETE FROM record WHERE number = ? RETURNING length(body)", (number,)
        ).fetchone()
        if row is not None:
            self._size_bytes -= row[0]

    def _shrink(self) -> None:
        while self._size_bytes > self._budget_bytes and self._merge_oldest():
            pass
        for kind in ("bundle IS NOT NULL", "bundle IS NULL"):
            while self._size_bytes > self._budget_bytes:
                oldest = f"SELECT min(number) FROM record WHERE {kind}"  # noqa: S608 - one of two texts above
                number = self._database.execute(oldest).fetchone()[0]
                if number is None:
                    break
                log.warning("The outbox is over its budget: record %d is dropped.", number)
                self._delete(number)

    def _merge_oldest(self) -> bool:
        """Add the two oldest windows of one version that were never sent; tell whether there were two."""
        rows = self._database.execute(
            "SELECT number, body FROM record WHERE sent = 0 AND bundle = ("
            " SELECT bundle FROM record WHERE sent = 0 AND bundle IS NOT NULL"
            " GROUP BY bundle HAVING count(*) > 1 ORDER BY min(number) LIMIT 1) ORDER BY number LIMIT 2"
        ).fetchall()
        if len(rows) < 2:
            return False
        (older, left), (newer, right) = rows
        windows = [_decode(left), _decode(right)]
        assert isinstance(windows[0], TelemetryWindow)
        assert isinstance(windows[1], TelemetryWindow)
        merged = msgspec.msgpack.encode(merge_windows(windows[0], windows[1]))
        self._database.execute("UPDATE record SET body = ? WHERE number = ?", (merged, newer))
        self._size_bytes += len(merged) - len(right)
        self._delete(older)
        return True

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        size_bytes = self._size_bytes
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                self._size_bytes = size_bytes
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _FULL:
                raise NoSpace("There is no space left for the outbox.", remedy="Free some space.") from error
            raise StorageError(f"The outbox cannot be written: {error}.") from error


def _decode(body: bytes) -> RecordBody:
    try:
        decoded: RecordBody = msgspec.msgpack.decode(body, type=RecordBody)
    except msgspec.DecodeError as error:
        raise InvalidMessage("A record in the outbox cannot be understood.") from error
    return decoded
