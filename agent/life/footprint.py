"""What memory the agent takes and what is left: by this a version on probation is judged.

The process's own memory is what is resident and backed by no file, ``resident - shared`` of
``/proc/self/statm`` (see proc(5)). Mapped model files do not count: the kernel takes their pages back when it
needs them. Where there is no such file, nothing is known of it and no growth is seen; what is left is known
all the same.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from agent.memory import measure_memory
from fleet.protocol.errors import TrialMemoryExceeded

_STATM = Path("/proc/self/statm")
_PAGE_SIZE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MIB = 1024.0**2


class Footprint(NamedTuple):
    """Memory at one moment.

    Attributes:
        own_bytes: What this process has to itself.
        free_bytes: How much more it can have.
    """

    own_bytes: int
    free_bytes: int


def measure_own_bytes() -> int:
    """Return what this process has to itself now; 0 where nothing is known of it."""
    try:
        _, resident, shared, *_ = (int(word) for word in _STATM.read_bytes().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * _PAGE_SIZE_BYTES


def measure_footprint() -> Footprint:
    """Return the memory now."""
    return Footprint(measure_own_bytes(), measure_memory().free_bytes)


def check_growth(now: Footprint, before: Footprint, *, allowed_bytes: int, reserve_bytes: int) -> None:
    """Check what memory a version takes.

    Args:
        now: The memory now.
        before: As it was before the version was loaded.
        allowed_bytes: How much more the process may have to itself.
        reserve_bytes: How much must be left, if as much was left before.

    Raises:
        TrialMemoryExceeded: The version takes too much.
    """
    grown_bytes = now.own_bytes - before.own_bytes
    if grown_bytes > allowed_bytes:
        raise TrialMemoryExceeded(
            f"The process takes {grown_bytes / _MIB:.1f} MiB more than before the version was loaded; "
            f"{allowed_bytes / _MIB:.1f} MiB are allowed."
        )
    if now.free_bytes < reserve_bytes <= before.free_bytes:
        raise TrialMemoryExceeded(
            f"{now.free_bytes / _MIB:.1f} MiB of memory are left; {reserve_bytes / _MIB:.1f} MiB must be."
        )
