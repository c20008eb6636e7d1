"""Waiting for what other processes do: a condition with a deadline, never a bare sleep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

TIMEOUT_S = 20.0
POLL_S = 0.02

_T = TypeVar("_T")


def eventually(
    condition: Callable[[], _T | None], what: str = "the condition holds", *, timeout_s: float = TIMEOUT_S
) -> _T:
    """Return the first true value of a condition; fail if there is none in time.

    Args:
        condition: Asked again and again.
        what: For the failure's message: "the device is online".
        timeout_s: How long.
    """
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"not so within {timeout_s:g} s: {what}"
        time.sleep(POLL_S)
    return value


async def eventually_async(
    condition: Callable[[], _T | None], what: str = "the condition holds", *, timeout_s: float = TIMEOUT_S
) -> _T:
    """Do the same as `eventually` while the event loop goes on."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"not so within {timeout_s:g} s: {what}"
        await asyncio.sleep(POLL_S)
    return value
