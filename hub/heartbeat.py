"""The hub's own heartbeat: how long it has not looked at the fleet, also across restarts."""

from __future__ import annotations

import time
from pathlib import Path

from hub.durable import storage_error


class Heartbeat:
    """Remembers when the hub was last at work, in a file's time of change.

    Args:
        path: The file; it is empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def beat(self) -> float:
        """Say that the hub is at work; return how long ago it last was, in seconds, 0 for the first time.

        Raises:
            StorageError: The file cannot be changed.
        """
        now_s = time.time()
        try:
            last_s = self._path.stat().st_mtime if self._path.exists() else now_s
            self._path.touch()
        except OSError as error:
            raise storage_error(self._path, error) from error
        return max(0.0, now_s - last_s)
