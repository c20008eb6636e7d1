"""What this device can run, as it tells the hub."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from agent.runtimes.registry import available_runtimes
from fleet.protocol.messages import Capabilities


def measure(state: Path) -> Capabilities:
    """Return the device's capabilities as they are now.

    Args:
        state: A folder on the file system where models are installed.
    """
    return Capabilities(
        agent_version=agent_version(),
        architecture=platform.machine(),
        runtimes=available_runtimes(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        free_bytes=shutil.disk_usage(state).free,
    )


def agent_version() -> str:
    """Return the installed release; ``0+source`` when run from a tree that is not installed."""
    try:
        return version("muster")
    except PackageNotFoundError:
        return "0+source"
