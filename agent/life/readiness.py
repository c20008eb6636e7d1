"""The readiness command: a program of the device's that says whether a version may be swapped in now.

It is run without a shell, in a session of its own. Exit code 0 is yes. Everything else is no: another code, a
signal, no end in time, no such program. The first line of what it prints is the reason that people are shown.
When it has ended, or its time is over, whatever it started is killed with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress

MAX_REASON_LENGTH = 200
_READ_BYTES = 4096
_NOT_PASSED_ON = ("NOTIFY_", "WATCHDOG_", "MUSTER_")
"""Beginnings of variables that are about the agent's own process."""


async def ask(command: Sequence[str], timeout_s: float) -> str | None:
    """Return why a version may not be swapped in now, a sentence; None if it may.

    Args:
        command: The program and its arguments; it may print 64 KiB, more than that holds it up.
        timeout_s: How long it may take.
    """
    # A pipe of our own: asyncio's would wait for everyone who has it, also for what outlives the program.
    read_end, write_end = os.pipe()
    try:
        os.set_blocking(read_end, False)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,
                env={key: value for key, value in os.environ.items() if not key.startswith(_NOT_PASSED_ON)},
            )
        except OSError as error:
            return f"The readiness command {command[0]!r:.80} cannot be run: {error.strerror}."
        return await _answer(process, read_end, timeout_s)
    finally:
        os.close(read_end)
        os.close(write_end)


async def _answer(process: asyncio.subprocess.Process, read_end: int, timeout_s: float) -> str | None:
    try:
        async with asyncio.timeout(timeout_s):
            code = await process.wait()
    except TimeoutError:
        return f"The readiness command did not end within {timeout_s:g} s."
    finally:
        with suppress(ProcessLookupError, PermissionError):  # it has ended, or is another account's
            os.killpg(process.pid, signal.SIGKILL)
    if code == 0:
        return None
    return _first_line(read_end) or f"The readiness command ended with exit code {code}."


def _first_line(read_end: int) -> str:
    """Return the first line of what was printed, as far as it can be shown."""
    try:
        printed = os.read(read_end, _READ_BYTES)
    except BlockingIOError:
        return ""
    lines = printed.decode("utf-8", "replace").strip().splitlines()
    return "".join(letter for letter in lines[0] if letter.isprintable())[:MAX_REASON_LENGTH] if lines else ""
