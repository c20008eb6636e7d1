"""Run a job in a process of its own and wait for it, without blocking the event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from fleet.protocol.errors import Cause, ModelError, MusterError, Unavailable, error_of
from hub import children
from hub.jobs.lines import AnyLine, Progress

MAX_LINE_SIZE_BYTES = 1024 * 1024
Result = TypeVar("Result", bound=msgspec.Struct)


async def run_job(
    worker: str,
    job: msgspec.Struct,
    result: type[Result],
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Result:
    """Do a job in a process of its own. Cancelling kills that process.

    Args:
        worker: The module that does it, see `hub.jobs.worker`.
        job: What to do.
        result: What comes of it.
        on_progress: Called in the event loop when a step begins.

    Raises:
        MusterError: What the job raised, in its own class.
        ModelError: The process ended without saying why.
        Unavailable: The process could not be started.
    """
    process = await _started(worker)
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
    if not bytes(last.result) or status != 0:
        raise ModelError(
            f"The process {worker} ended without a result: {_ending(status)}.",
            remedy="Its last words are in the hub's log; SIGKILL usually means that memory ran out.",
        )
    try:
        return msgspec.json.decode(last.result, type=result)
    except msgspec.DecodeError as error:
        raise _outside_protocol(worker) from error


def rebuilt(cause: Cause) -> MusterError:
    """Return the error of which this is the cause, in the class that its code names."""
    return error_of(cause.code)(cause.detail)


async def _started(worker: str) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *children.command(worker),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=children.environment(),
            limit=MAX_LINE_SIZE_BYTES,
            start_new_session=True,  # Ctrl-C in the hub's terminal reaches the hub, which then cancels
        )
    except OSError as error:
        raise Unavailable(f"The process {worker} could not be started: {error.strerror}.") from error


async def _send(stdin: asyncio.StreamWriter, job: msgspec.Struct) -> None:
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
        raise _outside_protocol("that worked for the hub") from error
    return last


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _outside_protocol(worker: str) -> ModelError:
    return ModelError(f"The process {worker} wrote something outside its protocol.")


def _ending(status: int) -> str:
    if status < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"
