"""Turns: a few questions that read much of the store are answered at a time, and the others wait.

One that adds up what many devices did keeps a processor busy for seconds, in the interpreter that also takes
in what devices send. Answered all at once, no question would be done sooner, and devices would wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from fastapi import Depends, Request

from fleet.protocol.errors import Unavailable
from hub.api.auth import Viewer

MOST_AT_ONCE = 2
LONGEST_WAIT_S = 30.0


class Turns:
    """Who may ask now.

    Args:
        most: How many at once.
        longest_wait_s: How long one may wait.
    """

    def __init__(self, most: int = MOST_AT_ONCE, longest_wait_s: float = LONGEST_WAIT_S) -> None:
        self._free = asyncio.Semaphore(most)
        self._longest_wait_s = longest_wait_s

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncGenerator[None]:
        """Wait for a turn, and hold it meanwhile.

        Raises:
            Unavailable: None came in time.
        """
        try:
            async with asyncio.timeout(self._longest_wait_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise Unavailable(
                "The hub is busy with other questions about the fleet.",
                remedy="Ask again in a moment; a shorter range or fewer devices are answered sooner.",
            ) from error
        try:
            yield
        finally:
            self._free.release()


async def _turn(request: Request, _: Viewer) -> AsyncGenerator[None]:
    async with request.app.state.turns.taken():
        yield


async def _turn_to_search(request: Request, _: Viewer, where: str | None = None) -> AsyncGenerator[None]:
    if where is None:  # a page of a list is read at once
        yield
        return
    async with request.app.state.turns.taken():
        yield


IN_TURN = Depends(_turn, scope="function")  # an answer that is read slowly holds up nobody
"""For routes whose callers, once they are known, wait for their turn."""
SEARCH_IN_TURN = Depends(_turn_to_search, scope="function")
"""Likewise for lists, where a target is given: every device is read to answer."""
