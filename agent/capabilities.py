"""What this device can run, as it tells the hub."""

from __future__ import annotations

import platform
import re
import shutil
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from agent.memory import measure_memory
from agent.runtimes.registry import available_runtimes
from fleet.protocol.messages import Capabilities

MAX_HARDWARE_LENGTH = 128


def measure(state: Path, *, captures_samples: bool = False, count_noise_epsilon: float = 0.0) -> Capabilities:
    """Return the device's capabilities as they are now.

    Args:
        state: A folder on the file system where models are installed.
        captures_samples: Whether the owner lets inputs be captured.
        count_noise_epsilon: How private counts are now; 0 if they are exact.
    """
    return Capabilities(
        agent_version=agent_version(),
        architecture=platform.machine(),
        runtimes=available_runtimes(),
        memory_bytes=measure_memory().limit_bytes,
        free_bytes=shutil.disk_usage(state).free,
        hardware=hardware(),
        obeys_wishes=True,
        captures_samples=captures_samples,
        keeps_windows=True,
        noises_counts=True,
        count_noise_epsilon=count_noise_epsilon,
    )


@cache
def hardware(
    device_tree: Path = Path("/proc/device-tree/model"), cpuinfo: Path = Path("/proc/cpuinfo")
) -> str:
    """Return the name of the board, or else of the processor, or else its architecture.

    Args:
        device_tree: Where boards with a device tree say their name, ended by a zero byte.
        cpuinfo: Where Linux describes the processors.
    """
    board = _text(device_tree).strip("\0 \n")
    processor = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(\S.*?)\s*$", _text(cpuinfo), re.MULTILINE)
    name = board or (processor[1] if processor else "") or platform.machine()
    return "".join(letter for letter in name if letter.isprintable())[:MAX_HARDWARE_LENGTH]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return ""


def agent_version() -> str:
    """Return the installed release; ``0+source`` when run from a tree that is not installed."""
    try:
        return version("muster")
    except PackageNotFoundError:
        return "0+source"
