"""Requests under way, so that an orderly end can wait for their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Generic, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Drain(Generic[_P, _T]):
    """Stands before whatever answers requests and knows which are under way.

    Args:
        respond: Answers one request, at once or later.
    """

    def __init__(self, respond: Callable[_P, _T | Coroutine[Any, Any, _T]]) -> None:
        self._respond = respond
        self._under_way: set[asyncio.Future[None]] = set()

    def respond(self, *args: _P.args, **kwargs: _P.kwargs) -> _T | Coroutine[Any, Any, _T]:
        """Answer one request, at once or later."""
        answer = self._respond(*args, **kwargs)
        return self._later(answer) if isinstance(answer, CoroutineType) else answer

    async def _later(self, answer: Coroutine[Any, Any, _T]) -> _T:
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.add(answered)
        try:
            return await answer
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
