"""A hub's rollouts over a real store on disk, and a process that can be ended before any of its writes.

A `World` is the shell of the rollout engine, the store and its file, and a clock that only the test moves.
Every statement that writes passes a `Breaking` connection. At the statement that a test chose, either the
disk is full and the process goes on, or the process is over: then the file and its log are copied as they
are on disk at that moment, and the next process opens the copy. What the dying one still does, such as
undoing its transaction, no longer reaches anybody.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from fleet.protocol.errors import MusterError, StorageError, VersionRevoked
from fleet.protocol.manifest import Manifest
from hub.heartbeat import Heartbeat
from hub.rollouts.absence import excuse_absence
from hub.rollouts.shell import Rollouts
from hub.store.protocols import Store
from hub.store.sqlite import SqliteStore
from hub.store.telemetry_rows import TelemetryStep

Release = tuple[str, Manifest]
TABLES = ("rollouts", "rollout_devices", "rollout_evidence", "rollout_decisions", "rollout_claims", "desired")
"""What rollouts write, beside the sequence numbers of devices."""


class Died(BaseException):
    """The process is no more."""


class Fault(Enum):
    """What happens at the chosen statement."""

    KILLED = "the process is killed"
    FULL = "the disk is full"


class Breaking:
    """A connection that breaks at one of its statements, and counts them.

    A commit counts twice, before and after it: killed after it, everything is stored and nobody was told.

    Args:
        connection: The writing connection of a store.
        break_at: Number of the statement from 0; None for never.
        breaks: Called there with whether it is committed; it raises.
    """

    def __init__(
        self, connection: sqlite3.Connection, break_at: int | None, breaks: Callable[[bool], None]
    ) -> None:
        self.connection = connection
        self.statements = 0
        self._break_at = break_at
        self._breaks = breaks

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """Execute a statement, or break."""
        if sql == "ROLLBACK":
            return self.connection.execute(sql)
        self._passes(committed=False)
        done = self.connection.execute(sql, *parameters)
        if sql == "COMMIT":
            self._passes(committed=True)
        return done

    def executemany(self, sql: str, parameters: Any) -> sqlite3.Cursor:
        """Execute a statement for many rows, or break."""
        self._passes(committed=False)
        return self.connection.executemany(sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def _passes(self, *, committed: bool) -> None:
        here = self.statements
        self.statements += 1
        if here == self._break_at:
            self._breaks(committed)


class Outcome(NamedTuple):
    """What became of a piece of work.

    Attributes:
        refusal: Code of the error that it was refused with; None if it was done.
        statements: How many statements it wrote, a commit counted twice.
    """

    refusal: str | None
    statements: int


class World:
    """One hub: its file, its processes one after the other, and its clock.

    Args:
        folder: Empty; for its files.
        template: The file that it begins with; None for the one that is in its folder already.
        releases: What may be rolled out, by model and version.
    """

    def __init__(
        self, folder: Path, template: Path | None, releases: Mapping[tuple[str, int], Release]
    ) -> None:
        self._folder = folder
        self._releases = releases
        self._processes = 0
        self.revoked: set[tuple[str, int]] = set()
        self.now_s = 1_700_000_000.0
        self.heartbeat = Heartbeat(folder / "alive", clock=lambda: self.now_s)
        if template is not None:
            shutil.copyfile(template, self._file)
        self._begin()

    @property
    def _file(self) -> Path:
        return self._folder / f"{self._processes}.db"

    def _begin(self) -> None:
        self.store = SqliteStore(self._file)
        self.forget()

    def forget(self) -> None:
        """Let the shell forget what it has in memory only."""
        self.rollouts = Rollouts(
            self.store,
            released=self._released,
            on_orders=lambda: None,
            group_by=("site",),
            clock=lambda: self.now_s,
        )

    def _released(self, model: str, version: int) -> Release:
        if (model, version) in self.revoked:
            raise VersionRevoked(f"{model} version {version} was revoked.")
        return self._releases[model, version]

    def beat(self) -> None:
        """Be at work, as the hub is all the time."""
        self.heartbeat.beat()

    def come_back(self) -> None:
        """Be at work again after a while, as the hub does it."""
        excuse_absence(self.heartbeat, self.rollouts)

    def close(self) -> None:
        """End the process."""
        self.store.close()

    def do(
        self, work: Callable[[World], object], *, break_at: int | None = None, fault: Fault = Fault.KILLED
    ) -> Outcome:
        """Do a piece of work.

        Args:
            work: It changes the world through its store or its rollouts.
            break_at: The statement at which there is a fault; None for none.
            fault: Which.

        Raises:
            Died: The process was killed; another one has opened its file.
            StorageError: The disk was full; nothing of the transaction is stored.
        """
        writer = self.store._database._writer
        breaking = Breaking(writer.conn, break_at, lambda committed: self._break(fault, committed))
        writer.conn = breaking  # type: ignore[assignment]
        try:
            work(self)
        except StorageError:
            raise
        except MusterError as error:
            return Outcome(error.code, breaking.statements)
        except Died:
            self.store.close()
            self._processes += 1
            self._begin()
            raise
        finally:
            writer.conn = breaking.connection
        return Outcome(None, breaking.statements)

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return all that rollouts have written, as any reader of the file sees it."""
        with closing(sqlite3.connect(self._file)) as reader:
            found = {
                name: reader.execute(f"SELECT * FROM {name} ORDER BY 1, 2, 3").fetchall() for name in TABLES
            }
            found["devices"] = reader.execute("SELECT device_id, sequence FROM devices ORDER BY 1").fetchall()
        return found

    def _break(self, fault: Fault, committed: bool) -> None:
        if fault is Fault.KILLED:
            for suffix in ("", "-wal"):
                source = self._folder / f"{self._processes}.db{suffix}"
                if source.exists():
                    shutil.copyfile(source, self._folder / f"{self._processes + 1}.db{suffix}")
            raise Died
        if not committed:
            raise sqlite3.OperationalError("database or disk is full")


def read_by_others(store: Store) -> None:
    """Let all readers but rollouts have read every record, so that retention may delete it."""
    last = store.last_position()
    store.save_telemetry(TelemetryStep(previous=store.telemetry_position(), position=last))
    store.save_concepts(last, [])
