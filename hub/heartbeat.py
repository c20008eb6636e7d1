"""The hub's own heartbeat: how long it has not looked at the fleet, also across restarts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hub.durable import storage_error


class Silence(NamedTuple):
    """How long the hub was not at work.

    Attributes:
        since_s: When it last was, Unix seconds.
        duration_s: How long ago that is; 0 if it never was, or the clock was set back.
    """

    since_s: float
    duration_s: float


class Heartbeat:
    """Remembers when the hub was last at work, in a file's time of change.

    Args:
        path: The file; it is empty.
        clock: Returns the hub's time, Unix seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    def silence(self) -> Silence:
        """Return how long the hub was not at work; the same again until the next `beat`.

        Raises:
            StorageError: The file cannot be looked at.
        """
        now_s = self._clock()
        try:
            since_s = self._path.stat().st_mtime if self._path.exists() else now_s
        except OSError as error:
            raise storage_error(self._path, error) from error
        return Silence(since_s, max(0.0, now_s - since_s))

    def beat(self) -> None:
        """Say that the hub is at work.

        Raises:
            StorageError: The file cannot be changed.
        """
        now_s = self._clock()
        try:
            self._path.touch()
            os.utime(self._path, (now_s, now_s))
        except OSError as error:
            raise storage_error(self._path, error) from error
