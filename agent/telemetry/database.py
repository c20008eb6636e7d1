"""The outbox's SQLite file, and the spool's: opened when needed, put aside if damaged, its errors made ours.

A file that cannot be opened now (the disk is full, a device fails) is left as it is and tried again at the
next use. Only what SQLite calls corrupt, or no database at all, is damage: the file then gets a name of its
own, ``<name>.damaged``, ``<name>.damaged-2`` and so on, together with its write-ahead log, and a new file is
begun. Nothing is ever deleted but the log's index (``-shm``), which SQLite builds anew.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from agent import durable
from fleet.protocol.errors import NoSpace, StorageCorrupt, StorageError

log = logging.getLogger(__name__)

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_LOG = "-wal"
_INDEX = "-shm"


class Database:
    """A SQLite file that outlives full disks and damage.

    Args:
        path: The file.
        prepare: Called with each new connection, before anything else uses it.
        name: What messages call it.
    """

    def __init__(
        self, path: Path, prepare: Callable[[sqlite3.Connection], None], *, name: str = "outbox"
    ) -> None:
        self._path = path
        self._name = name
        self._prepare = prepare
        self._connection: sqlite3.Connection | None = None
        self.damage: StorageCorrupt | None = None
        """Set when a damaged file was put aside."""

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """Give the connection, opened if need be; SQLite's errors of the block become ours.

        Raises:
            NoSpace: The disk is full.
            StorageCorrupt: The file is damaged. It was put aside; the next use begins a new one.
            StorageError: The file cannot be used now.
        """
        try:
            if self._connection is None:
                self._connection = self._open()
            yield self._connection
        except sqlite3.Error as error:
            if self._connection is not None:
                if _is_damage(error):
                    self._put_aside(error)
                if _is_damage(error) or self._connection.in_transaction:
                    self.close()
            if self.damage is not None and _is_damage(error):
                raise self.damage from error
            if _code(error) in _FULL:
                raise NoSpace(
                    f"There is no space left for the {self._name}.", remedy="Free some space."
                ) from error
            raise StorageError(f"The {self._name} cannot be used: {error}.") from error

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if not self._path.exists() and self._beside(_LOG).exists():
            self._move_aside()  # else SQLite would delete the log of a database that was put aside
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        with suppress(OSError):  # SQLite meets it too, and says it in its words
            self._path.touch(mode=durable.PRIVATE)  # its log and index get the same mode
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            self._prepare(connection)
        except BaseException as error:
            try:
                if isinstance(error, sqlite3.Error) and _is_damage(error):
                    self._put_aside(error)
            finally:
                connection.close()
            raise
        return connection

    def _put_aside(self, error: sqlite3.Error) -> None:
        """Make room for a new file. Comes before closing: SQLite deletes a log when it closes its file."""
        log.warning("The %s is damaged (%s) and was put aside as %s.", self._name, error, self._move_aside())
        self.damage = StorageCorrupt(
            f"The {self._name} was damaged; records that the hub did not have are lost."
        )

    def _move_aside(self) -> str:
        """Give the file and its log a name that nothing has, and return it."""
        first = self._path.name + ".damaged"
        names = (first if number == 1 else f"{first}-{number}" for number in count(1))
        with durable.storage_errors(self._path):
            free = next(
                name
                for name in names
                if not any(self._path.with_name(name + suffix).exists() for suffix in ("", _LOG))
            )
            for suffix in ("", _LOG):
                if self._beside(suffix).exists():
                    self._beside(suffix).replace(self._path.with_name(free + suffix))
            self._beside(_INDEX).unlink(missing_ok=True)
            durable.sync_folder(self._path.parent)
        return free

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(self._path.name + suffix)


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 for an error that the Python module made."""
    extended: int = getattr(error, "sqlite_errorcode", 0)
    return extended & 0xFF


def _is_damage(error: sqlite3.Error) -> bool:
    return _code(error) in _DAMAGE
