"""Logging: one JSON object a line on standard error, for journals and shippers of logs.

``{"at": "2025-01-01T00:00:00.000Z", "level": "warning", "subject": "agent.mqtt", "message": "…"}``
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import msgspec

from fleet.protocol.errors import MusterError


class JsonFormatter(logging.Formatter):
    """Formats a log entry as one line of JSON; a traceback is its last field."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC)
        entry = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "subject": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


def unexpected_failure() -> MusterError:
    """Return the error that tells others of a fault of ours; what it was stands in the log alone."""
    return MusterError("The agent failed unexpectedly; see its log.")


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send everything from ``level`` on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("tuf").setLevel(logging.WARNING)
