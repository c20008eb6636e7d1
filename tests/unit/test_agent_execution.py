"""Who computes where: turns at a model, what the event loop does itself, and what it hands over."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from agent.execution import PROOF_RUNS, Execution
from agent.hosting.host import Host
from agent.hosting.hosted import Hosted
from fleet.protocol.errors import InferenceFailed, InferenceTimedOut
from tests.support.agent_bundles import build, build_costly, load_bundle
from tests.support.agent_models import PIXELS
from tests.support.held_model import hold_up
from tests.support.waiting import eventually, eventually_async

ONE = {"pixels": np.full((1, PIXELS), 0.5, dtype=np.float32)}
TWO = {"pixels": np.full((2, PIXELS), 0.5, dtype=np.float32)}
BRIGHT = {"pixels": np.full((1, PIXELS), 2.0, dtype=np.float32)}


def execution(hosted: Hosted) -> Execution:
    """Return a version's runs."""
    return hosted._execution


async def prove_quick(
    hosted: Hosted, inputs: dict[str, np.ndarray[tuple[int, int], np.dtype[np.float32]]]
) -> None:
    """Ask until the event loop computes itself."""
    for _ in range(50 * PROOF_RUNS):  # the machine may be slow at times
        if execution(hosted).run_if_quick(inputs) is not None:
            return
        await execution(hosted).hand_over(inputs)
    raise AssertionError("never quick")


def test_the_event_loop_computes_only_what_is_proven_quick(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await load_bundle(build(1), tmp_path)
        for _ in range(PROOF_RUNS - 1):
            await execution(hosted).hand_over(ONE)
        assert execution(hosted).run_if_quick(ONE) is None
        await prove_quick(hosted, ONE)
        assert execution(hosted).run_if_quick(TWO) is None, "larger than what was proven"

    asyncio.run(run())


def test_two_slow_runs_end_the_proof(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await load_bundle(build_costly(1, rounds=20_000), tmp_path)
        await prove_quick(hosted, ONE)
        slow = 0
        while execution(hosted).run_if_quick(BRIGHT) is not None:  # as large, nobody knows that it is slow
            slow += 1
        assert 1 <= slow <= 2
        assert execution(hosted).run_if_quick(ONE) is None

    asyncio.run(run())


def test_one_slow_run_does_not_end_a_proof_of_long_standing(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await load_bundle(build_costly(1, rounds=20_000), tmp_path)

        async def is_kept() -> bool:
            await prove_quick(hosted, ONE)
            for _ in range(2 * PROOF_RUNS):
                execution(hosted).run_if_quick(ONE)
            execution(hosted).run_if_quick(BRIGHT)
            return execution(hosted).run_if_quick(ONE) is not None

        assert any([await is_kept() for _ in range(5)])  # the machine may be slow at times, too

    asyncio.run(run())


def test_the_event_loop_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        hosted = await load_bundle(build(1), tmp_path)
        await prove_quick(hosted, ONE)
        let_go = hold_up(hosted, 2.0, monkeypatch)
        other = threading.Thread(target=hosted.infer_now, args=(BRIGHT,))
        other.start()
        await eventually_async(lambda: hosted.is_busy)
        ran = execution(hosted).run_if_quick(ONE)
        let_go.set()
        assert ran is None
        assert (await hosted.infer(ONE)).version == 1  # in its turn
        other.join()

    asyncio.run(run())


def test_nothing_on_trial_computes_in_the_event_loop(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await load_bundle(build(1), tmp_path)
        await prove_quick(hosted, ONE)
        assert hosted.infer_at_once(ONE) is not None
        hosted.on_failure = lambda _error: None
        assert hosted.infer_at_once(ONE) is None

    asyncio.run(run())


def test_a_turn_that_does_not_come_in_time_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        hosted = await load_bundle(build(1), tmp_path, timeout_s=0.1)
        let_go = hold_up(hosted, 2.0, monkeypatch)
        told: list[InferenceFailed] = []
        hosted.on_failure = told.append

        def is_told() -> bool:
            hosted.tell_late_run()
            return len(told) == 2

        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(hosted.infer_now, BRIGHT)
            await eventually_async(lambda: hosted.is_busy)
            second = threads.submit(hosted.infer_now, ONE)
            try:
                with pytest.raises(InferenceTimedOut):
                    await asyncio.wrap_future(second)
                await eventually_async(is_told)
                hosted.tell_late_run()
            finally:
                let_go.set()
            with pytest.raises(InferenceTimedOut):
                await asyncio.wrap_future(first)
        assert len(told) == 2
        window = hosted.counter.close(9.0)
        assert window is not None
        assert (window.errors, window.predictions) == (2, 0)

    asyncio.run(run())


def test_threads_and_event_loop_take_turns_through_swaps(tmp_path: Path) -> None:
    """Whoever asks meets a version at any moment, and what a former version answers last is counted too."""
    versions = range(1, 6)

    async def run() -> None:
        host = Host()
        for version in versions:
            (tmp_path / str(version)).mkdir()
        hosted = [await load_bundle(build(version), tmp_path / str(version)) for version in versions]
        host.put("digits", hosted[0])
        enough, answered = threading.Event(), [0, 0, 0]

        def ask(client: int) -> None:
            while not enough.is_set():
                host.answering("digits").infer_now(ONE)
                answered[client] += 1

        threads = [threading.Thread(target=ask, args=(client,)) for client in range(3)]
        for thread in threads:
            thread.start()
        asked = 0
        for following in [*hosted[1:], *hosted]:
            before = sum(answered)
            while sum(answered) < before + 100:
                await host.answering("digits").infer(ONE)
                asked += 1
            host.put("digits", following)
        enough.set()
        await asyncio.to_thread(lambda: eventually(lambda: not any(thread.is_alive() for thread in threads)))
        counted = [*host.close_windows(1.0), *host.close_windows(2.0)]
        assert sum(window.predictions for window in counted) == sum(answered) + asked
        assert {window.version for window in counted} == set(versions)
        for each in hosted:
            each.close()

    asyncio.run(run())


def test_a_request_that_was_taken_before_the_version_closed_is_answered(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await load_bundle(build(1), tmp_path)
        asked = asyncio.ensure_future(hosted.infer(ONE))  # begins with the next turn of the event loop
        hosted.close()
        assert (await asked).version == 1

    asyncio.run(run())


def test_requests_that_wait_for_a_model_that_hangs_do_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        hosted = await load_bundle(build(1), tmp_path, timeout_s=0.1)
        let_go = hold_up(hosted, 2.0, monkeypatch)
        hanging = asyncio.ensure_future(hosted.infer(BRIGHT))
        await eventually_async(lambda: hosted.is_busy)
        pixels = ONE["pixels"].copy()
        given = weakref.ref(pixels)
        with pytest.raises(InferenceTimedOut):
            await hosted.infer({"pixels": pixels})
        del pixels
        gc.collect()
        assert given() is None
        assert hosted.is_busy, "it still hangs"
        with pytest.raises(InferenceTimedOut):
            await hanging
        let_go.set()
        await eventually_async(lambda: not hosted.is_busy)

    asyncio.run(run())
