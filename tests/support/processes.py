"""Looking at processes, by their numbers, and ending them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.support.waiting import eventually

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


def end(process: subprocess.Popen[bytes], how: signal.Signals) -> float:
    """Send a process a signal; return how long its end took by its own doing, in seconds.

    What its first thread waited for a processor, which others had, is not its doing.
    """
    if process.poll() is not None:
        return 0.0
    waited_s, started_s = waited_for_processor_s(process.pid), time.monotonic()
    process.send_signal(how)
    # It is not reaped before it was looked at: until then it has its number, and its times.
    seen = os.WEXITED | os.WNOWAIT | os.WNOHANG
    eventually(lambda: os.waitid(os.P_PID, process.pid, seen), "the process ends")
    took_s = time.monotonic() - started_s - (waited_for_processor_s(process.pid) - waited_s)
    process.wait()
    return took_s


def waited_for_processor_s(process_id: int) -> float:
    """Return how long a process' first thread was ready to run and did not; 0 where the kernel does not say.

    See Documentation/scheduler/sched-stats.rst of Linux: the second number, in nanoseconds.
    """
    try:
        return int(Path(f"/proc/{process_id}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def _state_and_parent(process_id: int) -> tuple[str, int] | None:
    try:
        state, parent = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[:2]
    except _GONE:
        return None
    return None if state == "Z" else (state, int(parent))
