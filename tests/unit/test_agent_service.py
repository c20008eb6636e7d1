"""What the service manager is told, and what it may ask; and requests under way at the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agent.drain import Drain
from agent.notify import Notifier
from fleet.protocol.errors import InvalidConfiguration
from tests.support.agent_service import ServiceManager

T = TypeVar("T")
SOCKET = {"NOTIFY_SOCKET": "/run/systemd/notify"}


@pytest.fixture(name="manager")
def manager_fixture(tmp_path: Path) -> Iterator[ServiceManager]:
    manager = ServiceManager(str(tmp_path / "n"))
    yield manager
    manager.close()


@pytest.mark.parametrize("address", ["relative/notify", "vsock:2:1", "@", "/", " "])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InvalidConfiguration, match="NOTIFY_SOCKET"):
        Notifier({"NOTIFY_SOCKET": address})


@pytest.mark.parametrize("number", ["0", "-1", "1e6", "soon", "٣", "9" * 40])
def test_an_interval_that_is_none_is_refused(number: str) -> None:
    with pytest.raises(InvalidConfiguration, match="WATCHDOG_USEC"):
        Notifier({**SOCKET, "WATCHDOG_USEC": number})


def test_signs_of_life_are_due_at_half_the_time_and_from_the_process_that_is_meant() -> None:
    asked = {**SOCKET, "WATCHDOG_USEC": "30000000"}
    assert Notifier(asked).watchdog_interval_s == 15.0
    assert Notifier({**asked, "WATCHDOG_PID": str(os.getpid())}).watchdog_interval_s == 15.0
    assert Notifier({**asked, "WATCHDOG_PID": "1"}).watchdog_interval_s is None
    assert Notifier(SOCKET).watchdog_interval_s is None
    assert Notifier({"WATCHDOG_USEC": "30000000"}).watchdog_interval_s is None


def test_without_a_manager_nothing_is_sent_and_nothing_runs() -> None:
    notifier = Notifier({})
    notifier.ready("Ready.")
    asyncio.run(notifier.keep_telling(lambda: "Never asked."))
    notifier.stopping()


def test_a_manager_that_is_gone_does_no_harm(manager: ServiceManager, tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    notifier.ready("Ready.")
    assert manager.lines() == ["READY=1", "STATUS=Ready."]
    manager.close()
    notifier.stopping()
    (tmp_path / "n").unlink()
    notifier.stopping()


def test_the_status_is_told_when_it_changes(manager: ServiceManager) -> None:
    said = iter(["One.", "One.", "Two."])

    async def run() -> None:
        notifier = Notifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "20000"})
        with pytest.raises(RuntimeError):  # the statuses have run out
            await notifier.keep_telling(lambda: next(said))

    asyncio.run(run())
    assert manager.lines() == ["WATCHDOG=1", "STATUS=One.", "WATCHDOG=1", "WATCHDOG=1", "STATUS=Two."]


async def later(answer: T | Coroutine[Any, Any, T]) -> T:
    """Return what a request is answered that is not answered at once."""
    assert isinstance(answer, Coroutine)
    return await answer


def test_an_end_waits_for_what_is_under_way_and_not_for_what_comes_later() -> None:
    async def run() -> None:
        gates = {name: asyncio.Event() for name in ("early", "late")}

        async def respond(name: str) -> str:
            await gates[name].wait()
            return name

        drain: Drain[[str], str] = Drain(respond)
        early = asyncio.create_task(later(drain.respond("early")))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(drain.wait(10.0))
        await asyncio.sleep(0)
        late = asyncio.create_task(later(drain.respond("late")))
        await asyncio.sleep(0)
        assert not waiting.done()
        gates["early"].set()
        assert await early == "early"
        await waiting
        assert not late.done()
        await drain.wait(0.01)  # a request that hangs is not waited for without end
        assert not late.done()
        gates["late"].set()
        assert await late == "late"
        await drain.wait(10.0)

    asyncio.run(run())


def test_an_answer_that_fails_is_under_way_no_more() -> None:
    async def run() -> None:
        async def respond() -> None:
            raise KeyError

        drain: Drain[[], None] = Drain(respond)
        with pytest.raises(KeyError):
            await later(drain.respond())
        await drain.wait(10.0)

    asyncio.run(run())
