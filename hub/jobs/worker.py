"""The process's side of a job: the job on standard input, progress and result on standard output.

The conversation is described in `hub.jobs.lines`. Heavy work in a process of its own keeps the hub
responsive, and a crash in native code cannot take the hub down. The process ends by itself when the hub is
gone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from hub.jobs.lines import Progress

MAX_JOB_SIZE_BYTES = 1024 * 1024
NICENESS = 5
"""The hub and its broker go first."""

PARENT_CHECK_INTERVAL_S = 1.0
SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Small matrices lose time to threads, and sums split over threads differ in their last bits."""

Work = Callable[[Any, Callable[["Progress"], None]], Any]
"""Carries out a job: takes it and what to call when a step begins, returns the result."""


def serve(load: Callable[[], tuple[type[Any], Work]]) -> int:
    """Carry out the job on standard input; return the exit status.

    Args:
        load: Imports and returns the type of the job and what carries it out; called when the process is
            prepared for what they import.
    """
    os.environ.update(SINGLE_THREADED)  # before anything loads numpy, which reads it once
    os.nice(NICENESS)
    _end_with_parent()
    lines = _claim_stdout()

    from fleet.protocol.errors import MusterError

    try:
        _carry_out(sys.stdin.buffer.read(MAX_JOB_SIZE_BYTES + 1), lines, *load())
    except MusterError as error:
        import msgspec

        from hub.jobs.lines import ErrorLine

        lines.write(msgspec.json.encode(ErrorLine(error.cause())) + b"\n")
        return 1
    return 0


def _carry_out(data: bytes, lines: BinaryIO, job: type[Any], work: Work) -> None:
    import msgspec

    from fleet.protocol.errors import InvalidInput
    from hub.jobs.lines import ResultLine

    try:
        if len(data) > MAX_JOB_SIZE_BYTES:
            raise InvalidInput(f"The job is larger than {MAX_JOB_SIZE_BYTES} bytes.")
        wanted = msgspec.json.decode(data, type=job)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"The job cannot be understood: {error}.") from error

    def report(progress: Progress) -> None:
        lines.write(msgspec.json.encode(progress) + b"\n")

    lines.write(msgspec.json.encode(ResultLine(work(wanted, report))) + b"\n")


def _claim_stdout() -> BinaryIO:
    """Return an unbuffered standard output for the lines; what libraries print goes to standard error."""
    claimed = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return claimed


def _end_with_parent() -> None:
    """End this process when its parent has ended: nobody would read the result."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_INTERVAL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()
