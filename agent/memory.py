"""Memory of the device and of this process: how much there may be, what is free, giving back what is spare.

A process may be held to less than the machine has. The least of these is what counts, on the way from the
process's control group up to the root:

===================  ==========================================================================
control groups       the limit stands in
===================  ==========================================================================
version 2            ``memory.max``, in each group's folder
version 1            ``memory.stat``, line ``hierarchical_memory_limit``, which has the least one
===================  ==========================================================================

What is free under a limit is the limit less what is charged to the group, and the cached files in that
charge: the kernel takes them back before it ends a process. Source: the kernel's documentation of control
groups, ``admin-guide/cgroup-v2`` and ``admin-guide/cgroup-v1/memory``.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

_PROC = Path("/proc")
_MADV_DONTNEED = 4
_CODE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r-xp \S+ \S+ [1-9]\d* +/")
"""First line of ``smaps`` about code that is mapped from a file."""


class Memory(NamedTuple):
    """What memory this process can have.

    Attributes:
        limit_bytes: The most that it may ever have.
        free_bytes: How much more it can have now.
    """

    limit_bytes: int
    free_bytes: int


def measure_memory(proc: Path = _PROC) -> Memory:
    """Return what memory this process can have: the machine's, or less where a control group holds it.

    Args:
        proc: Where the kernel tells of processes.
    """
    machine = _fields(proc / "meminfo", scale=1024)
    physical_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = [Memory(machine.get("MemTotal", physical_bytes), machine.get("MemAvailable", physical_bytes))]
    found += _groups(proc)
    return Memory(min(each.limit_bytes for each in found), max(0, min(each.free_bytes for each in found)))


def give_back() -> None:
    """Give back memory that is not needed now: freed pages of the heap, and code that ran once.

    Runtimes run a great part of their code only when they are imported and when they load a model. It stays
    mapped; dropped here, it is still cached by the kernel, which may take it back first, and what is needed
    again comes again by page faults that read no disk. Code with pages of its own (relocated, or with a
    debugger's breakpoints) is left alone, for those could not come back.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        for start, end in _unchanged_code(_PROC / "self" / "smaps"):
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)
    except (OSError, AttributeError) as error:  # no /proc, or a C library that has no such functions
        log.debug("No memory was given back: %s.", error)


def _unchanged_code(smaps: Path) -> Iterator[tuple[int, int]]:
    """Yield first and last address of code that is just what its file holds."""
    code: tuple[int, int] | None = None
    for line in smaps.read_text("ascii", "replace").splitlines():
        if (begin := _CODE.match(line)) is not None:
            code = int(begin[1], 16), int(begin[2], 16)
        elif code is not None and line.startswith("Anonymous:"):
            if int(line.split()[1]) == 0:
                yield code
            code = None


def _groups(proc: Path) -> list[Memory]:
    """Return what the control groups of this process allow; nothing where none limits memory."""
    try:
        lines = (proc / "self" / "cgroup").read_text("utf-8").splitlines()
        mounts = [line.split() for line in (proc / "self" / "mountinfo").read_text("utf-8").splitlines()]
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        is_second = controllers == ""
        if not is_second and "memory" not in controllers.split(","):
            continue
        for mount in mounts:
            kind, options = mount[mount.index("-") + 1], mount[-1].split(",")
            if kind == "cgroup2" if is_second else (kind == "cgroup" and "memory" in options):
                folder = _below(Path(mount[4]), mount[3], path)
                found += _second_version(folder, Path(mount[4])) if is_second else _first_version(folder)
    return found


def _below(mounted: Path, root: str, path: str) -> Path:
    """Return a group's folder; a container sees only what is below its own group, mounted as the root."""
    inner = path.removeprefix(root) if root != "/" else path
    folder = mounted / inner.lstrip("/")
    return folder if folder.is_dir() else mounted


def _second_version(folder: Path, mounted: Path) -> list[Memory]:
    found = []
    for group in (folder, *folder.parents):
        limit_bytes = _number(group / "memory.max")
        if limit_bytes is not None:
            found.append(_under(limit_bytes, _number(group / "memory.current") or 0, group, ""))
        if group == mounted:
            break
    return found


def _first_version(folder: Path) -> list[Memory]:
    limit_bytes = _fields(folder / "memory.stat").get("hierarchical_memory_limit")
    if limit_bytes is None or limit_bytes >= 2**62:  # its way to say none
        return []
    return [_under(limit_bytes, _number(folder / "memory.usage_in_bytes") or 0, folder, "total_")]


def _under(limit_bytes: int, used_bytes: int, group: Path, prefix: str) -> Memory:
    stat = _fields(group / "memory.stat")
    cached_bytes = sum(stat.get(f"{prefix}{name}", 0) for name in ("active_file", "inactive_file"))
    return Memory(limit_bytes, limit_bytes - used_bytes + cached_bytes)


def _number(path: Path) -> int | None:
    """Return the number in a file; None where there is no file, or a word such as ``max``."""
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


def _fields(path: Path, *, scale: int = 1) -> dict[str, int]:
    """Return lines of a name and a number, such as ``MemTotal:  1024 kB``; nothing where there is no file."""
    try:
        lines = [line.split() for line in path.read_text("ascii").splitlines()]
    except (OSError, ValueError):
        return {}
    return {
        words[0].rstrip(":"): int(words[1]) * scale
        for words in lines
        if len(words) > 1 and words[1].isdecimal()
    }
