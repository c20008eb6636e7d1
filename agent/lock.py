"""One agent at a time on a state folder: the lock that the running one holds."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from agent import durable
from fleet.protocol.errors import Conflict

LOCK_FILE = "agent.lock"


def lock_state(state: Path) -> int:
    """Take the state folder for this process alone; return the lock's file descriptor.

    Raises:
        Conflict: Another agent runs on it.
    """
    with durable.storage_errors(state / LOCK_FILE):
        descriptor = os.open(state / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, durable.PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise Conflict(f"Another agent runs on {state}.", remedy="Stop it first.") from error
    return descriptor


def check_nobody_runs(state: Path) -> None:
    """Check that no agent holds the lock, without making the file.

    Raises:
        Conflict: An agent runs on the folder.
    """
    try:
        lock = os.open(state / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # no agent ever ran there, or what is there is no lock of ours
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Conflict(f"An agent runs on {state}.", remedy="Stop it first.") from error
    finally:
        os.close(lock)
