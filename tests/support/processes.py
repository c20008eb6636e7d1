"""Looking at processes, by their numbers."""

from __future__ import annotations

from pathlib import Path

_GONE = (FileNotFoundError, ProcessLookupError)


def is_alive(process_id: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    return _state_and_parent(process_id) is not None


def children(of: int) -> set[int]:
    """Return the processes that a process has started and that run."""
    numbers = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return {number for number in numbers if (_state_and_parent(number) or ("", 0))[1] == of}


def command_line(process_id: int) -> str:
    """Return the command of a process; empty if there is none."""
    try:
        return Path(f"/proc/{process_id}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except _GONE:
        return ""


def _state_and_parent(process_id: int) -> tuple[str, int] | None:
    try:
        state, parent = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[:2]
    except _GONE:
        return None
    return None if state == "Z" else (state, int(parent))
