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
from datetime import UTC, datetime

import msgspec

from fleet.protocol.errors import MusterError


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


def unexpected_failure() -> MusterError:
    """Return the error that tells others of a fault of ours; what it was stands in the log alone."""
    return MusterError("The agent failed unexpectedly; see its log.")


def log_to_stderr(level: str = "info", form: str = "auto") -> None:
    """Send everything from a level on to standard error.

    Args:
        level: The least level that is told.
        form: ``json``, ``text``, or ``auto``: text on a terminal, else JSON. The variable by which systemd
            announces its journal says less: a terminal's shell inherits it from the session's service.
    """
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if is_text else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("tuf").setLevel(max(logging.WARNING, logging.getLogger().level))


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encodable(text: str) -> str:
    """Return text without the half characters that stand for the odd bytes of a file's name."""
    return text.encode("utf-8", "backslashreplace").decode()
