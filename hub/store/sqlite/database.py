"""One SQLite file: a single writing connection behind a lock, and a reading connection for each thread.

WAL lets readers go on while the writer writes. ``synchronous=FULL`` makes a committed transaction survive a
power cut: the hub acknowledges messages only after such a commit. Write transactions begin IMMEDIATE, so
that a second process (``muster hub token``) waits instead of failing half-way.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlite_utils

from fleet.protocol.errors import StorageError
from hub.store.sqlite.migrations import migrations

BUSY_TIMEOUT_S = 30.0
PAGE_SIZE_BYTES = 8192
"""Twice SQLite's default: batches of records take fewer writes, measured by ``make bench-ingest``."""

MAX_LOG_SIZE_BYTES = 64 * 1024**2
"""Of the write-ahead log, once its pages are in the file; it is cut to this."""
_PAGES_A_CUT = 1000
_MOST_CUTS = 100


class Database:
    """The file and its connections.

    Args:
        path: The file; its folder exists.

    Raises:
        StorageError: It cannot be opened or migrated.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._write_lock = threading.Lock()
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        try:
            self._writer = self._open()
            _allow_to_shrink(self._writer.conn)
            self._writer.conn.execute("PRAGMA journal_mode=WAL")
            migrations.apply(self._writer)
        except sqlite3.Error as error:
            self.close()
            raise StorageError(f"The database {path} cannot be used: {error}.") from error

    @contextmanager
    def writing(self) -> Generator[sqlite_utils.Database]:
        """Give the writer inside a transaction: committed at the end, undone if anything is raised.

        Raises:
            StorageError: SQLite failed, for example because the disk is full; nothing was changed.
        """
        with self._write_lock:
            try:
                self._writer.conn.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                except BaseException:
                    self._writer.conn.execute("ROLLBACK")
                    raise
                self._writer.conn.execute("COMMIT")
            except sqlite3.Error as error:
                if self._writer.conn.in_transaction:
                    self._writer.conn.execute("ROLLBACK")
                raise StorageError(f"The database could not be written: {error}.") from error

    def delete_some(self, name: str, where: str, values: Sequence[Any], *, limit: int) -> int:
        """Delete some of a table's rows in a transaction of its own, so few that nobody waits long to write.

        Args:
            name: Of the table.
            where: Which rows, in SQL, and if it matters in what order.
            values: For its marks.
            limit: How many at most.

        Returns:
            How many that were.

        Raises:
            StorageError: SQLite failed.
        """
        which = f"SELECT rowid FROM {name} WHERE {where} LIMIT ?"  # noqa: S608 - our texts
        with self.writing() as db:
            done = db.execute(f"DELETE FROM {name} WHERE rowid IN ({which})", [*values, limit])  # noqa: S608 - likewise
            return done.rowcount

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query, on this thread's reading connection.

        Raises:
            StorageError: SQLite failed.
        """
        with self.reading() as connection:
            found = connection.execute(sql, parameters)
            columns = [column[0] for column in found.description]
            return [dict(zip(columns, row, strict=True)) for row in found]

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """Give this thread's reading connection, whose rows are tuples.

        Raises:
            StorageError: SQLite failed.
        """
        try:
            if not hasattr(self._local, "reader"):
                self._local.reader = self._open()
            yield self._local.reader.conn
        except sqlite3.Error as error:
            raise StorageError(f"The database could not be read: {error}.") from error

    @contextmanager
    def snapshot(self) -> Generator[sqlite3.Connection]:
        """Give this thread's reading connection for several queries that see the same state of the file.

        Raises:
            StorageError: SQLite failed.
        """
        with self.reading() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("COMMIT")

    def row(self, sql: str, parameters: tuple[Any, ...] = ()) -> dict[str, Any] | None:
        """Return the first row of a query, or None."""
        rows = self.rows(sql, parameters)
        return rows[0] if rows else None

    def size_bytes(self) -> int:
        """Return the size of the file and of its write-ahead log.

        Raises:
            StorageError: The file is not there.
        """
        files = (self._path, self._path.with_name(f"{self._path.name}-wal"))
        try:
            return sum(file.stat().st_size for file in files if file is self._path or file.exists())
        except OSError as error:
            raise StorageError(f"The database {self._path} cannot be looked at: {error.strerror}.") from error

    def give_back_space(self) -> None:
        """Cut free pages off the file, some at a time, so that nobody waits long to write, and then the log.

        Raises:
            StorageError: SQLite failed.
        """
        for _ in range(_MOST_CUTS):
            with self.writing() as db:
                db.execute(f"PRAGMA incremental_vacuum({_PAGES_A_CUT})").fetchall()
                if db.execute("PRAGMA freelist_count").fetchone()[0] == 0:
                    break
        with self._write_lock:
            try:
                self._writer.conn.execute("PRAGMA busy_timeout=0")  # where readers are in the way: next time
                self._writer.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                raise StorageError(f"The database could not be written: {error}.") from error
            finally:
                with suppress(sqlite3.Error):  # it is closed
                    self._writer.conn.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_S * 1000:.0f}")

    def close(self) -> None:
        """Close every connection, of all threads."""
        with self._write_lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def _open(self) -> sqlite_utils.Database:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._connections.append(connection)
        connection.execute(f"PRAGMA page_size={PAGE_SIZE_BYTES}")  # of a new file; others keep theirs
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")  # of captured samples nothing may stay in the file
        connection.execute(f"PRAGMA journal_size_limit={MAX_LOG_SIZE_BYTES}")
        return sqlite_utils.Database(connection, strict=True)


def _allow_to_shrink(connection: sqlite3.Connection) -> None:
    """Let pages that become free be given back little by little; a file made without that is written anew."""
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 0:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        if connection.execute("PRAGMA page_count").fetchone()[0]:
            connection.execute("VACUUM")


class Part:
    """What every part of the store stands on.

    Args:
        database: The shared file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
