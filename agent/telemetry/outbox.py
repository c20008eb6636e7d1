"""The outbox: records that must reach the hub, in SQLite until the hub says that it has them.

Numbers rise for ever, also after rows are gone (``AUTOINCREMENT``); the stream's name is drawn when the
file is created, so that numbers of a new file are never taken for old ones. A record is marked as sent
before its first sending: one that the hub may have is never changed again.

Over its byte budget the outbox gives up the least first:

1. the two oldest windows of one version that were never sent become one, by addition;
2. the oldest windows are dropped;
3. the oldest of the other records are dropped.

Where counts get noise (`agent.telemetry.noise`), they get it on the way in, so that a record that is sent
again is the same.

What is no window is urgent and goes first: a report must not wait behind days of telemetry.

While the file cannot be used, nothing is taken in or given out; what callers do about it is theirs.
`agent.telemetry.database` tells when a file is given up as damaged.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from agent.telemetry.bodies import bundle_of, has_exact_counts, merged, read_body
from agent.telemetry.database import Database
from fleet.protocol.errors import InvalidMessage, StorageCorrupt, StorageError
from fleet.protocol.messages import Record, encode
from fleet.protocol.records import Diagnostics, RecordBody, TelemetryWindow, packed

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (stream TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS record (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    bundle TEXT,                -- of a window, see `agent.telemetry.bodies`; else NULL
    body BLOB NOT NULL,         -- MessagePack
    sent INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS urgent ON record (number) WHERE bundle IS NULL;
CREATE TABLE IF NOT EXISTS answered (request_id TEXT NOT NULL);  -- the last diagnostic request; one row
CREATE TABLE IF NOT EXISTS taken (     -- windows that other processes on this device handed over
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE
);
"""

Shield = Callable[[RecordBody], RecordBody | None]

KEPT_IDS = 4096
"""Of how many windows of other processes it is known that they were taken."""


class Entry(NamedTuple):
    """A record as it stands in the outbox."""

    number: int
    body: bytes
    stream: str


class Counts(NamedTuple):
    """What is in the outbox: records, telemetry windows among them, those sent already, bytes of all."""

    records: int
    windows: int
    sent: int
    size_bytes: int


class Outbox:
    """The records that the hub has not acknowledged.

    Args:
        path: The database file. If it cannot be opened now, it is tried again whenever it is needed.
        budget_bytes: How large all bodies together may grow.
    """

    def __init__(self, path: Path, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._size_bytes = 0
        self._shield: Shield | None = None
        self._may_have_exact = False
        self.stream = ""
        """The name of the file's numbers; empty before it could be opened."""
        self._database = Database(path, self._prepare)
        try:
            with self._database.use():
                pass
        except StorageError as error:
            log.warning("The outbox cannot be opened now: %s", error)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.executescript(_SCHEMA)
        row = connection.execute("SELECT stream FROM outbox").fetchone()
        if row is None:
            row = (secrets.token_hex(8),)
            connection.execute("INSERT INTO outbox VALUES (?)", row)
        (size_bytes,) = connection.execute("SELECT coalesce(sum(length(body)), 0) FROM record").fetchone()
        self.stream, self._size_bytes = row[0], size_bytes

    @property
    def damage(self) -> StorageCorrupt | None:
        """What is lost since the start because the file was damaged; None if it never was."""
        return self._database.damage

    def __len__(self) -> int:
        """Return how many records there are.

        Raises:
            StorageError: The file cannot be read.
        """
        with self._database.use() as connection:
            count: int = connection.execute("SELECT count(*) FROM record").fetchone()[0]
        return count

    def noise(self, shield: Shield | None) -> None:
        """Let counts get noise from now on, or none any more.

        Args:
            shield: Returns what is kept in place of a body, None for nothing; None to keep all as they are.
        """
        self._may_have_exact = shield is not None
        self._shield = shield

    @property
    def is_noised(self) -> bool:
        """Whether counts get noise."""
        return self._shield is not None

    def put(self, *bodies: RecordBody) -> None:
        """Keep records, all or none, until they are acknowledged.

        Raises:
            StorageError: They cannot be written.
        """
        with self._transaction() as connection:
            self._insert(connection, *bodies)

    def put_once(self, window_id: bytes, window: TelemetryWindow) -> None:
        """Keep a window of another process, unless it was taken before, also before a restart.

        Args:
            window_id: Drawn by that process, for this window alone.
            window: What it counted.

        Raises:
            StorageError: It cannot be written.
        """
        with self._transaction() as connection:
            taken = "INSERT OR IGNORE INTO taken (id) VALUES (?) RETURNING number"
            row = connection.execute(taken, (window_id,)).fetchone()
            if row is None:
                return
            connection.execute("DELETE FROM taken WHERE number <= ?", (row[0] - KEPT_IDS,))
            self._insert(connection, window)

    def put_answer(self, answer: Diagnostics) -> None:
        """Keep the answer to a request, unless it is kept or was acknowledged: a request is answered once.

        Raises:
            StorageError: It cannot be written.
        """
        if self.has_answered(answer.request_id):
            return
        with self._transaction() as connection:
            connection.execute("DELETE FROM answered")
            connection.execute("INSERT INTO answered VALUES (?)", (answer.request_id,))
            self._insert(connection, answer)

    def has_answered(self, request_id: str) -> bool:
        """Tell whether a request is the one that was answered last.

        Raises:
            StorageError: The file cannot be read.
        """
        with self._database.use() as connection:
            found = connection.execute("SELECT 1 FROM answered WHERE request_id = ?", (request_id,))
            return found.fetchone() is not None

    def counts(self) -> Counts:
        """Return how many records there are of each kind.

        Raises:
            StorageError: The file cannot be read.
        """
        with self._database.use() as connection:
            row = connection.execute(
                "SELECT count(*), count(bundle), coalesce(sum(sent), 0), coalesce(sum(length(body)), 0)"
                " FROM record"
            ).fetchone()
        return Counts(*row)

    def take(self, limit: int, *, beside: set[int], windows: int | None = None) -> list[Entry]:
        """Return records to send, urgent ones before windows and each oldest first, and mark them as sent.

        Args:
            limit: How many at most.
            beside: Numbers to leave out.
            windows: How many windows among them at most; None for any number.

        Raises:
            StorageError: They cannot be read, or not be marked and so must not be sent.
        """
        if self._may_have_exact:
            self._drop_exact()
            self._may_have_exact = False
        with self._database.use() as connection:
            rows = _oldest(connection, "bundle IS NULL", limit, beside)
            room = limit - len(rows)
            rows += _oldest(
                connection, "bundle IS NOT NULL", room if windows is None else min(room, windows), beside
            )
        fresh = [(number,) for number, _, sent in rows if not sent]
        if fresh:
            with self._transaction() as connection:
                connection.executemany("UPDATE record SET sent = 1 WHERE number = ?", fresh)
        return [Entry(number, body, self.stream) for number, body, _ in rows]

    def record(self, entry: Entry) -> Record:
        """Return an entry in the form that is sent.

        Raises:
            InvalidMessage: Its bytes are damaged.
        """
        return Record(entry.stream, entry.number, packed(read_body(entry.body)))

    def acknowledge(self, stream: str, numbers: tuple[int, ...]) -> None:
        """Forget records that the hub has; those of another stream are not ours.

        Raises:
            StorageError: It cannot be written.
        """
        with self._transaction() as connection:
            if stream == self.stream:
                for number in numbers:
                    self._delete(connection, number)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _drop_exact(self) -> None:
        """Give up windows that are not noised, and reports of shadows; none of them may be sent any more."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT number, bundle, body FROM record").fetchall()
            exact = [number for number, bundle, body in rows if has_exact_counts(bundle, body)]
            for number in exact:
                self._delete(connection, number)
        if exact:
            log.warning("%d records with exact counts were given up: counts get noise.", len(exact))

    def _insert(self, connection: sqlite3.Connection, *bodies: RecordBody) -> None:
        for given in bodies:
            body = given if self._shield is None else self._shield(given)
            if body is None:
                continue
            data, bundle = encode(packed(body)), bundle_of(body)
            connection.execute("INSERT INTO record (bundle, body) VALUES (?, ?)", (bundle, data))
            self._size_bytes += len(data)
        self._shrink(connection)

    def _delete(self, connection: sqlite3.Connection, number: int) -> None:
        row = connection.execute(
            "DELETE FROM record WHERE number = ? RETURNING length(body)", (number,)
        ).fetchone()
        if row is not None:
            self._size_bytes -= row[0]

    def _shrink(self, connection: sqlite3.Connection) -> None:
        """Keep to the budget, as the head of this file says."""
        while self._size_bytes > self._budget_bytes and self._merge_oldest(connection):
            pass
        for kind in ("bundle IS NOT NULL", "bundle IS NULL"):
            while self._size_bytes > self._budget_bytes:
                oldest = f"SELECT min(number) FROM record WHERE {kind}"  # noqa: S608 - one of two texts above
                number = connection.execute(oldest).fetchone()[0]
                if number is None:
                    break
                log.warning("The outbox is over its budget: record %d is dropped.", number)
                self._delete(connection, number)

    def _merge_oldest(self, connection: sqlite3.Connection) -> bool:
        """Add the two oldest windows of one version that were never sent; tell whether there were two."""
        rows = connection.execute(
            "SELECT number, body FROM record WHERE sent = 0 AND bundle = ("
            " SELECT bundle FROM record WHERE sent = 0 AND bundle IS NOT NULL"
            " GROUP BY bundle HAVING count(*) > 1 ORDER BY min(number) LIMIT 1) ORDER BY number LIMIT 2"
        ).fetchall()
        if len(rows) < 2:
            return False
        (older, left), (newer, right) = rows
        try:
            both = merged(left, right)
        except InvalidMessage as error:  # one of them; the older is the one to give up in any case
            log.warning("Record %d is dropped: %s", older, error)
        else:
            connection.execute("UPDATE record SET body = ? WHERE number = ?", (both, newer))
            self._size_bytes += len(both) - len(right)
        self._delete(connection, older)
        return True

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._database.use() as connection:
            size_bytes = self._size_bytes
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                self._size_bytes = size_bytes
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def _oldest(
    connection: sqlite3.Connection, kind: str, limit: int, beside: set[int]
) -> list[tuple[int, bytes, int]]:
    """Return number, body and whether it was sent, of the oldest records of a kind."""
    if limit <= 0:
        return []
    sql = f"SELECT number, body, sent FROM record WHERE {kind} ORDER BY number LIMIT ?"  # noqa: S608 - our text
    rows = connection.execute(sql, (limit + len(beside),)).fetchall()
    return [row for row in rows if row[0] not in beside][:limit]
