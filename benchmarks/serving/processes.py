"""What a server's processes cost, from ``/proc``: processor time and resident memory, children included.

====================  =================================================================  =====
file                  gives                                                              unit
====================  =================================================================  =====
``stat``              the parent's id
``task/*/schedstat``  time that a thread was on a processor                              ns
``smaps_rollup``      Rss; Pss, in which what processes share is divided among them      kB
====================  =================================================================  =====

Source: proc_pid_stat(5), proc_pid_smaps(5), the kernel's Documentation/scheduler/sched-stats.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_NS = 1e9


class Memory(NamedTuple):
    """Resident memory, in bytes.

    Attributes:
        rss_bytes: All that is in memory.
        pss_bytes: The same, what several processes share counted once.
    """

    rss_bytes: int
    pss_bytes: int

    def __add__(self, other: object) -> Memory:
        if not isinstance(other, Memory):
            return NotImplemented
        return Memory(self.rss_bytes + other.rss_bytes, self.pss_bytes + other.pss_bytes)


def family(process_id: int) -> list[int]:
    """Return a process and all its descendants."""
    parents = dict(_parents())
    found = [process_id]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found


def cpu_s(process_id: int) -> float:
    """Return how long the living threads of a process and its descendants were on a processor."""
    total_ns = 0
    for member in family(process_id):
        for thread in _PROC.glob(f"{member}/task/*/schedstat"):
            with suppress(OSError):  # it has just ended
                total_ns += int(thread.read_text().split()[0])
    return total_ns / _NS


def memory(process_id: int) -> Memory:
    """Return what a process and its descendants hold."""
    total = Memory(0, 0)
    for member in family(process_id):
        with suppress(OSError):
            total += _sizes((_PROC / str(member) / "smaps_rollup").read_text())
    return total


def _sizes(text: str) -> Memory:
    sizes = dict(re.findall(r"^(Rss|Pss): +(\d+) kB$", text, re.MULTILINE))
    return Memory(int(sizes.get("Rss", 0)) * 1024, int(sizes.get("Pss", 0)) * 1024)


def _parents() -> Iterator[tuple[int, int]]:
    for path in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in parentheses, may hold anything.
            yield int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])
