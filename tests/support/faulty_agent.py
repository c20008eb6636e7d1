"""The agent on a machine with faults: ``python -P faulty_agent.py FOLDER STATE run --state STATE``.

Nothing in the agent knows of this. What Python calls to change storage, and to read the wall clock, is
wrapped before the agent is imported:

- Each call that changes something under the state folder is one *operation*: it gets a number and a line
  in ``FOLDER/operations``. ``FOLDER/plan`` says at which number what happens. The test may replace the plan
  while the agent runs; counting then begins again.
- ``time.time`` and ``datetime.now`` are off by the seconds in ``FOLDER/clock``. Monotonic clocks are not.

=============  ======================================================================================
plan           what happens
=============  ======================================================================================
``kill N``     the process gets SIGKILL in place of operation N
``phase P``    it gets SIGKILL just after a model's state with phase P was put in its place
``under V``    it gets SIGKILL just after it was written down that variant V is being measured
``errno N M``  operations N to M-1 fail; a write first stores half of its bytes, as on a disk that fills up
=============  ======================================================================================

SQLite writes by itself, so there a statement that changes something is an operation; it fails as SQLite
says it (``SQLITE_FULL``, ``SQLITE_IOERR``). `tests.support.small_disk` is for its files on a full disk.
"""

from __future__ import annotations

import builtins
import datetime
import errno
import functools
import io
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

FOLDER, STATE = sys.argv[1:3]
RETRY_S = 0.3
"""How long what cannot be written waits, in place of the agent's seconds."""

_open, _write, _kill = os.open, os.write, os.kill
_SQLITE_CODES = {
    errno.ENOSPC: (sqlite3.SQLITE_FULL, "database or disk is full"),
    errno.EIO: (sqlite3.SQLITE_IOERR, "disk I/O error"),
}
_ENTERED = {"phase": (".state", "phase"), "under": ("variants.json", "under_test")}
"""How the file's name ends, and which of its fields says that it is time, by what is planned."""
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


_told = {
    name: _open(f"{FOLDER}/{name}", os.O_RDONLY) for name in ("plan", "clock")
}  # at hand when files run out


def _text(name: str) -> str:
    return os.pread(_told[name], 200, 0).decode()


class _Machine:
    """Counts operations and carries the plan out."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._plan = ""
        self._count = 0
        self._log = _open(f"{FOLDER}/operations", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def operation(self, name: str, path: str) -> int:
        """Count one operation; return the error number that it shall fail with, 0 for none."""
        if not path.startswith(STATE):
            return 0
        with self._lock:
            plan = _text("plan")
            if plan != self._plan:
                self._plan, self._count = plan, 0
            self._count += 1
            plan_number, what, *numbers = plan.split()
            if what == "kill" and self._count == int(numbers[0]):
                _kill(os.getpid(), signal.SIGKILL)
            code = 0
            if what in errno.errorcode.values() and int(numbers[0]) <= self._count < int(numbers[1]):
                code = int(getattr(errno, what))
            said = errno.errorcode[code] if code else "done"
            line = f"{plan_number} {self._count} {said} {name} {path[len(STATE) :]}\n"
            _write(self._log, line.encode())
            return code

    def check(self, name: str, path: str) -> None:
        """Count one operation; raise the error that it shall fail with."""
        code = self.operation(name, path)
        if code:
            raise OSError(code, os.strerror(code), path)

    def entered(self, path: str) -> None:
        """Take note that a file is in its place."""
        _, what, *wanted = _text("plan").split()
        name, field = _ENTERED.get(what, (None, ""))
        if name is None or not path.endswith(name):
            return
        with original_open(path, "rb") as stream:
            if f'"{field}":"{wanted[0]}"'.encode() in stream.read():
                _kill(os.getpid(), signal.SIGKILL)


_machine = _Machine()


def _path(target: Any, folder: int | None = None) -> str:
    """Return the path of what a call is about: a path, one relative to an open folder, or an open file."""
    if isinstance(target, int):
        return os.readlink(f"/proc/self/fd/{target}")  # noqa: PTH115 - a deleted file's is no path
    text = os.fsdecode(target)
    return text if folder is None else f"{_path(folder)}/{text}"


def _wrap(name: str) -> None:
    original: Callable[..., Any] = getattr(os, name)

    @functools.wraps(original)
    def call(target: Any, *args: Any, **kwargs: Any) -> Any:
        if name != "open" or args[0] & _CHANGES:
            _machine.check(name, _path(target, kwargs.get("dir_fd")))
        return original(target, *args, **kwargs)

    setattr(os, name, call)


def _wrap_replace() -> None:
    original = os.replace

    def replace(source: Any, target: Any) -> None:
        _machine.check("replace", os.fspath(target))
        original(source, target)
        _machine.entered(os.fspath(target))

    os.replace = replace  # type: ignore[assignment]


class _File(io.FileIO):
    """A file whose writes are operations."""

    def write(self, data: Any) -> int:
        path = _path(self.fileno())
        code = _machine.operation("write", path)
        if code:
            super().write(bytes(data)[: len(data) // 2])
            raise OSError(code, os.strerror(code), path)
        return super().write(data)


original_open = io.open


def _open_file(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
    if mode in {"wb", "ab"} and _path(file).startswith(STATE):
        if not isinstance(file, int):
            _machine.check("open", _path(file))
        return io.BufferedWriter(_File(file, mode))
    return original_open(file, mode, *args, **kwargs)


class _Connection(sqlite3.Connection):
    """A connection whose changing statements are operations."""

    def execute(self, statement: str, *args: Any) -> sqlite3.Cursor:
        self._check(statement)
        return super().execute(statement, *args)

    def executemany(self, statement: str, *args: Any) -> sqlite3.Cursor:
        self._check(statement)
        return super().executemany(statement, *args)

    def executescript(self, script: str) -> sqlite3.Cursor:
        self._check(script)
        return super().executescript(script)

    def _check(self, statement: str) -> None:
        words = statement.split()
        if words[0] in {"SELECT", "ROLLBACK"}:
            return
        code = _machine.operation(f"sql-{words[0].lower()}", f"{STATE}/outbox.sqlite")
        if code:
            number, text = _SQLITE_CODES[code]
            error = sqlite3.OperationalError(text)
            error.sqlite_errorcode = number
            raise error


def _offset_s() -> float:
    return float(_text("clock"))


def _wrap_clocks() -> None:
    real_time = time.time

    class Shifted(datetime.datetime):
        """The time that is told where this device is."""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(time.time(), tz)

    time.time = lambda: real_time() + _offset_s()
    datetime.datetime = Shifted  # type: ignore[misc]


def main() -> int:
    """Wrap, and run the agent's command."""
    for name in ("open", "fsync", "fdatasync", "unlink", "remove", "rmdir", "mkdir", "pwrite", "truncate"):
        _wrap(name)
    original_link = os.link

    def link(source: Any, target: Any) -> None:
        _machine.check("link", os.fspath(target))
        original_link(source, target)

    os.link = link  # type: ignore[assignment]
    _wrap_replace()
    builtins.open = _open_file
    io.open = _open_file
    connect = sqlite3.connect
    sqlite3.connect = functools.partial(connect, factory=_Connection)  # type: ignore[assignment]
    _wrap_clocks()

    from agent.cli import main as run
    from agent.life import shell

    shell.RETRY_S = RETRY_S
    return run(sys.argv[3:])


if __name__ == "__main__":
    raise SystemExit(main())
