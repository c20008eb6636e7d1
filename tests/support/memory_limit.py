"""A hard limit of memory for a process: a control group, as systemd's ``MemoryMax`` makes one.

Both versions of control groups have one folder for each group and a file that takes process ids. Who may not
make one is told so: on a person's machine the test is left out, in CI that is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.needed import leave_out
from tests.support.waiting import eventually

MEMORY_LIMIT_IS_MISSING = (
    "A control group for memory cannot be made, and these tests need one: run them as root, where the memory"
    " controller is on"
)
_ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


class _Files(NamedTuple):
    """Names of a group's files, which the two versions of control groups give."""

    limit: str
    swap: str
    peak: str
    events: str


_FIRST = _Files(
    "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"
)
_SECOND = _Files("memory.max", "memory.swap.max", "memory.peak", "memory.events")


class MemoryGroup:
    """A control group with a limit.

    Args:
        folder: The group's.
        files: Names of its files.
    """

    def __init__(self, folder: Path, files: _Files) -> None:
        self._folder = folder
        self._files = files

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command, so that it runs in the group from its first instruction on."""
        return ("sh", "-c", _ENTER, str(self._folder))

    @property
    def kills(self) -> int:
        """How many processes the kernel has ended for want of memory."""
        lines = (line.split() for line in (self._folder / self._files.events).read_text().splitlines())
        return {name: int(value) for name, value in lines}["oom_kill"]

    @property
    def peak_bytes(self) -> int:
        """The most that was charged to the group at once."""
        return int((self._folder / self._files.peak).read_text())

    @property
    def processes(self) -> list[int]:
        """The processes in it."""
        return [int(number) for number in (self._folder / "cgroup.procs").read_text().split()]


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """Make a control group for a block; its processes have ended when the block ends.

    Args:
        limit_bytes: The most memory that its processes may have together, swap included.
    """
    for mount, files in _mounts():
        folder = mount / f"muster-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if not (folder / files.limit).exists():
                continue  # its controller is off
            (folder / files.limit).write_text(str(limit_bytes))
            if (folder / files.swap).exists():
                (folder / files.swap).write_text("0" if files is _SECOND else str(limit_bytes))
            yield (group := MemoryGroup(folder, files))
            eventually(lambda: not group.processes, "the group is empty")
        finally:
            folder.rmdir()
        return
    leave_out(MEMORY_LIMIT_IS_MISSING)


def _mounts() -> Iterator[tuple[Path, _Files]]:
    """Yield where control groups that may limit memory are mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, options, *_ = line.split()
        if kind == "cgroup2":
            yield Path(folder), _SECOND
        elif kind == "cgroup" and "memory" in options.split(","):
            yield Path(folder), _FIRST
