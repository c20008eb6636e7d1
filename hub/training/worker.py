"""The training process: a job on standard input, progress and result on standard output.

``python -m hub.training.worker``; the conversation is described in `hub.training.job`. Training in a process
of its own keeps the hub responsive, and a crash in native code cannot take the hub down. The process ends by
itself when the hub is gone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import BinaryIO

MAX_JOB_SIZE_BYTES = 1024 * 1024
NICENESS = 5
"""The hub and its broker go first."""

PARENT_CHECK_INTERVAL_S = 1.0
SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Small matrices lose time to threads, and sums split over threads differ in their last bits."""


def main() -> int:
    """Carry out the job on standard input; return the exit status."""
    os.environ.update(SINGLE_THREADED)  # before anything loads numpy, which reads it once
    os.nice(NICENESS)
    _end_with_parent()
    lines = _claim_stdout()

    from fleet.protocol.errors import MusterError

    try:
        _carry_out(sys.stdin.buffer.read(MAX_JOB_SIZE_BYTES + 1), lines)
    except MusterError as error:
        import msgspec

        from hub.training.job import ErrorLine

        lines.write(msgspec.json.encode(ErrorLine(error.cause())) + b"\n")
        return 1
    return 0


def _carry_out(data: bytes, lines: BinaryIO) -> None:
    import msgspec

    from fleet.protocol.errors import InvalidInput
    from hub.training.job import Progress, ResultLine, TrainingJob
    from hub.training.train import train

    try:
        if len(data) > MAX_JOB_SIZE_BYTES:
            raise InvalidInput(f"The training job is larger than {MAX_JOB_SIZE_BYTES} bytes.")
        job = msgspec.json.decode(data, type=TrainingJob)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"The training job cannot be understood: {error}.") from error

    def report(progress: Progress) -> None:
        lines.write(msgspec.json.encode(progress) + b"\n")

    result = train(job, report)
    lines.write(msgspec.json.encode(ResultLine(result)) + b"\n")


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


if __name__ == "__main__":
    sys.exit(main())
