"""A leash: runs one command and ends it when standard input closes.

``python -m hub.leash -- command argument…``

The hub holds the other end of the pipe. However the hub ends, be it by ``kill -9``, the kernel closes that
end, and the command is told to stop, then killed. If the leash itself is killed, the kernel kills the command
(Linux, ``PR_SET_PDEATHSIG``). A line ``reload`` on standard input sends the command SIGHUP.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys

STOP_TIMEOUT_S = 3.0
_PR_SET_PDEATHSIG = 1
RELOAD = b"reload\n"


def run(command: list[str]) -> int:
    """Run the command until it ends or standard input closes; return its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Only the pipe counts, so that no signal can break the leash. Unlike SIG_IGN, the command does not
        # inherit a handler.
        signal.signal(number, lambda _number, _frame: None)
    _allow_open_files()
    libc = ctypes.CDLL(None)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - one thread only
    )
    poll = select.poll()
    ended = os.pidfd_open(child.pid)
    poll.register(ended, select.POLLIN)
    poll.register(0, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if ended in ready:
            return child.wait()
        words = os.read(0, 4096)
        if not words:
            return _stopped(child)
        if RELOAD in words:
            child.send_signal(signal.SIGHUP)


def _allow_open_files() -> None:
    """Let the command open as many files as it ever may: to a broker, each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # then it has what it had
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _stopped(child: subprocess.Popen[bytes]) -> int:
    child.terminate()
    try:
        return child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] != "--":
        sys.exit("usage: python -m hub.leash -- command argument…")
    sys.exit(abs(run(sys.argv[2:])))
