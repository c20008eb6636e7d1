"""Blocking work off the event loop, and from other threads back into it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import TypeVar

from fleet.protocol.errors import Unavailable

_T = TypeVar("_T")


async def run_to_end(work: Callable[[], _T]) -> _T:
    """Run blocking work in a thread; a caller that is cancelled still waits for its end.

    A thread cannot be interrupted. Waiting keeps the caller's successor from meeting it on the same files.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # the caller is gone; nobody else would look at it
        raise


def call_in_loop(loop: asyncio.AbstractEventLoop, work: Callable[[], _T], timeout_s: float) -> _T:
    """Do work in the event loop for another thread, which waits for it.

    Args:
        loop: The event loop.
        work: What it does; does not block.
        timeout_s: How long the thread waits.

    Raises:
        Unavailable: The loop is busy, or has ended.
    """
    done: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def do() -> None:
        if done.set_running_or_notify_cancel():
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

    try:
        loop.call_soon_threadsafe(do)
        return done.result(timeout_s)
    except TimeoutError as error:
        done.cancel()
        raise Unavailable("The agent is too busy to answer.") from error
    except RuntimeError as error:
        raise Unavailable("The agent is ending.") from error
