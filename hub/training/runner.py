"""Run a training in a process of its own and wait for it, without blocking the event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

import msgspec

from fleet.protocol.errors import Cause, ModelError, MusterError, Unavailable, error_of
from hub import children
from hub.training.job import AnyLine, Progress, TrainingJob, TrainingResult

WORKER = "hub.training.worker"
MAX_LINE_SIZE_BYTES = 1024 * 1024


async def run_training(
    job: TrainingJob, on_progress: Callable[[Progress], None] = lambda _: None
) -> TrainingResult:
    """Train in a process of its own. Cancelling kills that process.

    Args:
        job: What to train.
        on_progress: Called in the event loop when a step begins.

    Raises:
        MusterError: What the training raised, see `hub.training.train.train`, in its own class.
        ModelError: The process ended without saying why.
        Unavailable: The process could not be started.
    """
    process = await _started()
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        await _send(process.stdin, job)
        last = await _follow(process.stdout, on_progress)
        status = await process.wait()
    finally:
        await _kill(process)
    if last.error is not None:
        raise rebuilt(last.error)
    if last.result is None or status != 0:
        raise ModelError(
            f"The training process ended without a result: {_ending(status)}.",
            remedy="Its last words are in the hub's log; SIGKILL usually means that memory ran out.",
        )
    return last.result


def rebuilt(cause: Cause) -> MusterError:
    """Return the error of which this is the cause, in the class that its code names."""
    return error_of(cause.code)(cause.detail)


async def _started() -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *children.command(WORKER),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=children.environment(),
            limit=MAX_LINE_SIZE_BYTES,
            start_new_session=True,  # Ctrl-C in the hub's terminal reaches the hub, which then cancels
        )
    except OSError as error:
        raise Unavailable(f"The training process could not be started: {error.strerror}.") from error


async def _send(stdin: asyncio.StreamWriter, job: TrainingJob) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # it died; its output and status say why
        stdin.write(msgspec.json.encode(job))
        await stdin.drain()
        stdin.close()
        await stdin.wait_closed()


async def _follow(stdout: asyncio.StreamReader, on_progress: Callable[[Progress], None]) -> AnyLine:
    """Report progress until the output ends; return its last line."""
    last = AnyLine()
    try:
        async for line in stdout:
            last = msgspec.json.decode(line, type=AnyLine)
            if last.step is not None:
                on_progress(Progress(last.step, last.done, last.of))
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: a line beyond the limit
        raise ModelError("The training process wrote something outside its protocol.") from error
    return last


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _ending(status: int) -> str:
    if status < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"
