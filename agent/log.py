"""Logging: one entry a line on standard error, as JSON for journals and shippers of logs, as text for people.

=============  ==================================================================
field          meaning
=============  ==================================================================
``time``       when, RFC 3339 in UTC with milliseconds
``level``      ``debug``, ``info``, ``warning``, ``error`` or ``critical``
``logger``     the part of the program that says it, such as ``agent.mqtt``
``message``    one sentence
``exception``  the traceback, only where there is one
=============  ==================================================================
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from contextlib import nullcontext
from datetime import UTC, datetime

import msgspec

from fleet.protocol.errors import MusterError

RECENT_BYTES = 128 * 1024
"""How much of the log is kept in memory for a diagnostic bundle."""
LINE_BYTES = 8 * 1024
"""How much of one entry, with its traceback."""


class JsonFormatter(logging.Formatter):
    """Formats a log entry as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _encodable(record.getMessage()),
        }
        if record.exc_info:
            entry["exception"] = _encodable(self.formatException(record.exc_info))
        return msgspec.json.encode(entry).decode()


class TextFormatter(logging.Formatter):
    """Formats a log entry for a person at a terminal; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines."""
        text = f"{_time(record)} {record.levelname.lower():8} {record.name}: {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class RecentEntries(logging.Handler):
    """Keeps the last log entries in memory, as lines of JSON, within a budget of bytes.

    Args:
        budget_bytes: How large all lines together may grow; of a longer line the beginning is kept.
    """

    def __init__(self, budget_bytes: int = RECENT_BYTES) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._budget_bytes = budget_bytes
        self._size_bytes = 0
        self._lines: deque[bytes] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep an entry in place of the oldest."""
        line = self.format(record).encode("utf-8", "backslashreplace")[: min(LINE_BYTES, self._budget_bytes)]
        self._lines.append(line)
        self._size_bytes += len(line)
        while self._size_bytes > self._budget_bytes:
            self._size_bytes -= len(self._lines.popleft())

    def lines(self) -> list[str]:
        """Return the lines, oldest first."""
        with self.lock or nullcontext():
            return [line.decode("utf-8", "replace") for line in self._lines]


def recent_lines() -> list[str]:
    """Return the last log entries of this process, oldest first, each a line of JSON."""
    return next((h.lines() for h in logging.getLogger().handlers if isinstance(h, RecentEntries)), [])


def set_level(level: str) -> None:
    """Tell everything from a level on, from now on."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    logging.getLogger("tuf").setLevel(max(logging.WARNING, root.level))


def unexpected_failure() -> MusterError:
    """Return the error that tells others of a fault of ours; what it was stands in the log alone."""
    return MusterError("The agent failed unexpectedly; see its log.")


def log_to_stderr(level: str = "info", form: str = "auto") -> None:
    """Send everything from a level on to standard error, and keep the last of it in memory.

    Args:
        level: The least level that is told.
        form: ``json``, ``text``, or ``auto``: text on a terminal, else JSON. The variable by which systemd
            announces its journal says less: a terminal's shell inherits it from the session's service.
    """
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if is_text else JsonFormatter())
    logging.basicConfig(handlers=[handler, RecentEntries()], force=True)
    set_level(level)


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encodable(text: str) -> str:
    """Return text without the half characters that stand for the odd bytes of a file's name."""
    return text.encode("utf-8", "backslashreplace").decode()
