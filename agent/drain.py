"""Requests under way, so that an orderly end can wait for their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Drain(Generic[_P, _T]):
    """Stands before whatever answers requests and knows which are under way.

    Args:
        respond: Answers one request.
    """

    def __init__(self, respond: Callable[_P, Awaitable[_T]]) -> None:
        self._respond = respond
        self._under_way: set[asyncio.Future[None]] = set()

    async def respond(self, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Answer one request."""
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.add(answered)
        try:
            return await self._respond(*args, **kwargs)
        finally:
            self._under_way.discard(answered)
            answered.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        """Wait until those that are under way now are answered; those that come later are not waited for.

        Args:
            timeout_s: How long at most: a model may hang.
        """
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=timeout_s)
