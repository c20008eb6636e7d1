"""Turns: few at a time, whatever becomes of them; who waits too long is told so."""

from __future__ import annotations

import asyncio

import pytest

from fleet.protocol.errors import Unavailable
from hub.api.turns import Turns


def test_few_are_answered_at_a_time_and_all_in_the_end() -> None:
    async def story() -> None:
        turns, at_once, most, done = Turns(most=2), 0, 0, 0

        async def ask(fails: bool) -> None:
            nonlocal at_once, most, done
            async with turns.taken():
                at_once += 1
                most = max(most, at_once)
                await asyncio.sleep(0)
                at_once -= 1
                done += 1
                if fails:
                    raise ValueError

        results = await asyncio.gather(
            *(ask(number % 3 == 0) for number in range(30)), return_exceptions=True
        )
        assert (most, done) == (2, 30)
        assert sum(isinstance(result, ValueError) for result in results) == 10

    asyncio.run(story())


def test_who_waits_too_long_is_told_and_takes_no_turn() -> None:
    async def story() -> None:
        turns = Turns(most=1, longest_wait_s=0.05)
        async with turns.taken():
            with pytest.raises(Unavailable):
                async with turns.taken():
                    raise AssertionError
        async with turns.taken():
            pass

    asyncio.run(story())
