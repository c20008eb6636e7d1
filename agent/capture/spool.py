"""The spool: captured samples until the hub has them, in a SQLite file of its own beside the outbox.

Its own file and its own numbers, because samples may never crowd out what the outbox holds. Over its byte
budget the oldest samples go. What each model spent of its day's budget is kept here too. All samples went
through one redaction: if the owner sets another, those from before it go.

What is deleted is overwritten in the file, and cut off its write-ahead log.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from agent import durable
from agent.telemetry.database import Database
from fleet.protocol.errors import StorageCorrupt
from fleet.protocol.messages import encode
from fleet.protocol.samples import Sample

SPOOL_FILE = "samples.sqlite"

_SCHEMA = """
PRAGMA secure_delete = ON;  -- what was sent or given up must not stay on the disk
CREATE TABLE IF NOT EXISTS spool (stream TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sample (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    model TEXT NOT NULL,
    body BLOB NOT NULL          -- MessagePack
);
CREATE TABLE IF NOT EXISTS spent (model TEXT PRIMARY KEY, day INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS redaction (is_of TEXT NOT NULL);
"""


class Entry(NamedTuple):
    """A sample as it stands in the spool."""

    number: int
    body: bytes


class Spool:
    """The samples that the hub has not acknowledged.

    Args:
        state: The state folder.
        budget_bytes: How large all samples together may grow.
        redaction: What samples go through before they are put in, in any words that change with it.
    """

    def __init__(self, state: Path, budget_bytes: int, redaction: str = "") -> None:
        self._budget_bytes = budget_bytes
        self._redaction = redaction
        self._database = Database(state / SPOOL_FILE, self._prepare, name="spool of samples")
        self.stream = ""
        """The name of the file's numbers; empty before it could be opened."""

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.executescript(_SCHEMA)
        row = connection.execute("SELECT stream FROM spool").fetchone()
        if row is None:
            row = (secrets.token_hex(8),)
            connection.execute("INSERT INTO spool VALUES (?)", row)
        self.stream = row[0]
        if connection.execute("SELECT is_of FROM redaction").fetchall() != [(self._redaction,)]:
            with _transaction(connection):
                connection.execute("DELETE FROM sample")
                connection.execute("DELETE FROM redaction")
                connection.execute("INSERT INTO redaction VALUES (?)", (self._redaction,))
            _cut_log(connection)

    @property
    def damage(self) -> StorageCorrupt | None:
        """What is lost since the start because the file was damaged; None if it never was."""
        return self._database.damage

    def __len__(self) -> int:
        """Return how many samples there are.

        Raises:
            StorageError: The file cannot be read.
        """
        with self._database.use() as connection:
            count: int = connection.execute("SELECT count(*) FROM sample").fetchone()[0]
        return count

    def put(self, sample: Sample, *, day: int, spent_bytes: int) -> int:
        """Keep a sample, and what its model has spent; return how many older ones had to go.

        Raises:
            StorageError: It cannot be written.
        """
        body = encode(sample)
        with self._transaction() as connection:
            connection.execute("INSERT INTO sample (model, body) VALUES (?, ?)", (sample.model, body))
            spent = (sample.model, day, spent_bytes)
            connection.execute("INSERT OR REPLACE INTO spent VALUES (?, ?, ?)", spent)
            given_up = 0
            while self._size_bytes(connection) > self._budget_bytes:
                connection.execute("DELETE FROM sample WHERE number = (SELECT min(number) FROM sample)")
                given_up += 1
        return given_up

    def oldest(self) -> Entry | None:
        """Return the sample to send next; None if there is none.

        Raises:
            StorageError: The file cannot be read.
        """
        with self._database.use() as connection:
            row = connection.execute("SELECT number, body FROM sample ORDER BY number LIMIT 1").fetchone()
        return None if row is None else Entry(*row)

    def forget(self, *numbers: int) -> None:
        """Forget samples that the hub has; raises `StorageError`."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM sample WHERE number = ?", [(number,) for number in numbers])
        with self._database.use() as connection:
            _cut_log(connection)

    def keep_models(self, models: Iterable[str]) -> None:
        """Give up the samples of all other models: their policy was taken back; raises `StorageError`."""
        kept = set(models)
        with self._transaction() as connection:
            held = [model for (model,) in connection.execute("SELECT DISTINCT model FROM sample").fetchall()]
            gone = [(model,) for model in held if model not in kept]
            connection.executemany("DELETE FROM sample WHERE model = ?", gone)
        if gone:
            with self._database.use() as connection:
                _cut_log(connection)

    def spent(self, model: str) -> tuple[int, int]:
        """Return the last day on which a model's samples were kept, and how many bytes of them then.

        Raises:
            StorageError: The file cannot be read.
        """
        with self._database.use() as connection:
            row = connection.execute("SELECT day, bytes FROM spent WHERE model = ?", (model,)).fetchone()
        return (0, 0) if row is None else (row[0], row[1])

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _size_bytes(self, connection: sqlite3.Connection) -> int:
        size: int = connection.execute("SELECT coalesce(sum(length(body)), 0) FROM sample").fetchone()[0]
        return size

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._database.use() as connection, _transaction(connection):
            yield connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _cut_log(connection: sqlite3.Connection) -> None:
    """Write the log's pages into the file and empty the log, in which samples still stand."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def remove_spool(state: Path) -> None:
    """Delete what was captured and not sent: the device's owner does not allow it any more.

    Raises:
        StorageError: It cannot be deleted.
    """
    with durable.storage_errors(state / SPOOL_FILE):
        for file in state.glob(f"{SPOOL_FILE}*"):
            file.unlink(missing_ok=True)
