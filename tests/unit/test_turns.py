"""Turns: few at a time, whatever becomes of them; who waits too long is told so."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from fleet.protocol.errors import Unavailable
from hub.api import rollouts_actions
from hub.api.auth import _caller
from hub.api.turns import IN_TURN, SEARCH_IN_TURN, Turns
from hub.store.rows import ApiToken, Role


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


def test_a_list_waits_for_its_turn_only_if_devices_are_searched() -> None:
    app = FastAPI()
    app.state.turns = Turns(most=1, longest_wait_s=0.05)
    app.dependency_overrides[_caller] = lambda: ApiToken("ana", Role.VIEWER, 0.0)

    @app.get("/devices", dependencies=[SEARCH_IN_TURN])
    def devices() -> str:
        return "all"

    async def story() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://hub") as client,
            app.state.turns.taken(),
        ):
            assert (await client.get("/devices")).json() == "all"
            with pytest.raises(Unavailable):
                await client.get("/devices", params={"where": "online"})

    asyncio.run(story())


def test_dry_runs_of_a_fleet_wait_for_their_turn() -> None:
    routes = [route for route in rollouts_actions.router.routes if isinstance(route, APIRoute)]
    in_turn = {route.path for route in routes if IN_TURN in route.dependencies}
    assert in_turn == {"/rollouts/dry-run", "/rollbacks/dry-run"}
