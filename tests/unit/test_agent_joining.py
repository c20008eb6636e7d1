"""Requests that wait become one run: everybody gets his own answer, and nobody waits for company."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.execution import Execution
from agent.hosting.answers import Answer
from agent.hosting.hosted import Hosted
from agent.hosting.loading import open_plainly
from agent.life.slots import Slot
from agent.runtimes.joining import joinable_samples
from agent.runtimes.protocol import LoadedModel, Tensors
from agent.serving.statistics import Statistics
from agent.turns import Asked, Turns
from fleet.protocol.errors import InferenceFailed, InferenceNotFinite, InferenceTimedOut
from tests.support.agent_bundles import build, load_bundle, unpack
from tests.support.agent_models import PIXELS
from tests.support.waiting import eventually, eventually_async

Outputs = dict[str, NDArray[Any]]
POISON = 99.0


def given(number: float, samples: int = 1) -> dict[str, NDArray[np.float32]]:
    """Return inputs that tell who gave them."""
    return {
        "pixels": np.full((samples, PIXELS), number, dtype=np.float32) * np.linspace(0, 1, PIXELS, dtype="f4")
    }


class Watched:
    """A real model that notes the size of each run; the first run can be held up."""

    platform, accelerator = "onnxruntime_onnx", "cpu"

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.runs: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def infer(self, inputs: Tensors) -> Outputs:
        """Answer; what is poisoned fails, and all that is computed with it."""
        self.runs.append(len(inputs["pixels"]))
        assert self.may_go_on.wait(10)
        if (inputs["pixels"] == POISON).any():
            raise InferenceFailed("The runtime failed.")
        return self.model.infer(inputs)


def watched(hosted: Hosted, **changes: Any) -> tuple[Hosted, Watched]:
    """Let a version join runs, whether or not that pays here."""
    model = Watched(hosted._model)
    slot = hosted._slot
    thread = ThreadPoolExecutor(1)
    fields = {"loop": asyncio.get_running_loop(), "joined_samples": 8, **changes}
    return Hosted(slot, model, thread, fields.pop("timeout_s", 5.0), **fields), model


def turns(hosted: Hosted) -> Turns:
    return hosted._execution._turns


def with_version(folder: Path, work: Callable[[Hosted], Any], **given: Any) -> None:
    async def run() -> None:
        hosted = await load_bundle(build(1, **given), folder)
        await work(hosted)
        hosted.close()

    asyncio.run(run())


def test_everybody_gets_his_own_answer_from_one_run(tmp_path: Path) -> None:
    async def work(plain: Hosted) -> None:
        hosted, model = watched(plain)
        model.may_go_on.clear()
        numbers = [float(number) for number in range(1, 7)]
        with ThreadPoolExecutor(len(numbers)) as threads:
            first = threads.submit(hosted.infer_now, given(0.5))
            await eventually_async(lambda: model.runs)
            later = {number: threads.submit(hosted.infer_now, given(number)) for number in numbers[:4]}
            handed = {number: asyncio.ensure_future(hosted.infer(given(number, 2))) for number in numbers[4:]}
            await eventually_async(lambda: len(turns(hosted)) == len(numbers))
            model.may_go_on.set()
            answers = {number: await asyncio.wrap_future(future) for number, future in later.items()}
            answers |= {number: await task for number, task in handed.items()}
            assert first.result().joined == 0
        assert model.runs == [1, 8]
        for number, answer in answers.items():
            alone = plain.compute(given(number, len(answer.outputs["probabilities"])))
            assert np.allclose(answer.outputs["probabilities"], alone["probabilities"], atol=1e-6)
            assert answer.joined == 8
        assert [answer.is_guest for answer in answers.values()].count(False) == 1
        window = hosted.counter.close(9.0)
        assert window is not None
        assert (window.predictions, sum(window.latency.values())) == (9, 7)

    with_version(tmp_path, work)


def test_a_lone_caller_never_meets_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(plain: Hosted) -> None:
        hosted, model = watched(plain)

        def never(*_: Any) -> None:
            raise AssertionError("a lone caller waits for nobody")

        for step in ("enter", "wait", "company"):
            monkeypatch.setattr(turns(hosted), step, never, raising=False)
        for _ in range(3):
            assert hosted.infer_now(given(1.0)).joined == 0
        assert model.runs == [1, 1, 1]
        assert not hosted.is_busy

    with_version(tmp_path, work)


def test_one_that_fails_does_not_fail_the_others(tmp_path: Path) -> None:
    async def work(plain: Hosted) -> None:
        hosted, model = watched(plain)
        model.may_go_on.clear()
        poison = {"pixels": np.full((1, PIXELS), POISON, dtype=np.float32)}
        with ThreadPoolExecutor(5) as threads:
            first = threads.submit(hosted.infer_now, given(0.5))
            await eventually_async(lambda: model.runs)
            bad = threads.submit(hosted.infer_now, poison)
            good = [threads.submit(hosted.infer_now, given(number)) for number in (1.0, 2.0, 3.0)]
            await eventually_async(lambda: len(turns(hosted)) == 4)
            model.may_go_on.set()
            for each in (first, *good):
                assert (await asyncio.wrap_future(each)).version == 1
            with pytest.raises(InferenceFailed):
                await asyncio.wrap_future(bad)
        assert model.runs == [1, 4, 1, 1, 1, 1]
        window = hosted.counter.close(9.0)
        assert window is not None
        assert (window.predictions, window.errors) == (4, 1)

    with_version(tmp_path, work)


def test_one_whose_values_are_not_finite_fails_alone(tmp_path: Path) -> None:
    async def work(plain: Hosted) -> None:
        hosted, model = watched(plain)
        model.may_go_on.clear()
        with ThreadPoolExecutor(4) as threads:
            threads.submit(hosted.infer_now, given(0.5))
            await eventually_async(lambda: model.runs)
            bad = threads.submit(hosted.infer_now, given(-1.0))
            good = [threads.submit(hosted.infer_now, given(number)) for number in (1.0, 2.0)]
            await eventually_async(lambda: len(turns(hosted)) == 3)
            model.may_go_on.set()
            with pytest.raises(InferenceNotFinite):
                await asyncio.wrap_future(bad)
            assert [(await asyncio.wrap_future(each)).joined for each in good] == [3, 3]
        assert model.runs == [1, 3]

    with_version(tmp_path, work, negative_gives_nan=True)


def test_nothing_is_joined_on_trial(tmp_path: Path) -> None:
    async def work(plain: Hosted) -> None:
        hosted, model = watched(plain)
        hosted.on_failure = lambda _error: None
        model.may_go_on.clear()
        with ThreadPoolExecutor(3) as threads:
            asked = [threads.submit(hosted.infer_now, given(0.5))]
            await eventually_async(lambda: model.runs)
            asked += [threads.submit(hosted.infer_now, given(1.0)) for _ in range(2)]
            await eventually_async(lambda: len(turns(hosted)) == 2)
            model.may_go_on.set()
            for each in asked:
                await asyncio.wrap_future(each)
        assert model.runs == [1, 1, 1]

    with_version(tmp_path, work)


def test_who_gives_up_waiting_loses_no_turn_of_others(tmp_path: Path) -> None:
    async def work(plain: Hosted) -> None:
        hosted, model = watched(plain, timeout_s=0.2)
        model.may_go_on.clear()
        with ThreadPoolExecutor(3) as threads:
            first = threads.submit(hosted._execution.run, given(0.5))
            await eventually_async(lambda: model.runs)
            second = threads.submit(hosted.infer_now, given(1.0))
            with pytest.raises(InferenceTimedOut):
                await hosted.infer(given(2.0))
            with pytest.raises(InferenceTimedOut):
                await asyncio.wrap_future(second)
            assert len(turns(hosted)) == 0
            model.may_go_on.set()
            await asyncio.wrap_future(first)
            assert hosted.infer_now(given(3.0)).version == 1
            assert (await hosted.infer(given(3.0))).version == 1
        assert model.runs == [1, 1, 1]
        assert not hosted.is_busy

    with_version(tmp_path, work)


def test_threads_and_event_loop_under_load_each_get_their_own(tmp_path: Path) -> None:
    async def work(plain: Hosted) -> None:
        hosted, model = watched(plain)
        right = {number: plain.compute(given(number))["probabilities"] for number in map(float, range(1, 11))}

        def is_own(answer: Answer, number: float) -> bool:
            return np.allclose(answer.outputs["probabilities"], right[number], atol=1e-6)

        def ask(number: float) -> bool:
            return all(is_own(hosted.infer_now(given(number)), number) for _ in range(150))

        async def ask_in_loop(number: float) -> bool:
            return all([is_own(await hosted.infer(given(number)), number) for _ in range(100)])

        with ThreadPoolExecutor(6) as threads:
            asked = [threads.submit(ask, float(number)) for number in range(1, 7)]
            assert all(await asyncio.gather(*(ask_in_loop(float(number)) for number in range(7, 11))))
            for each in asked:
                assert await asyncio.wrap_future(each)
        assert max(model.runs) > 1
        assert sum(model.runs) == 6 * 150 + 4 * 100
        assert len(turns(hosted)) == 0
        assert not hosted.is_busy
        window = hosted.counter.close(9.0)
        assert window is not None
        assert window.predictions == sum(model.runs)

    with_version(tmp_path, work)


def test_what_is_taken_along_is_of_one_form_and_within_the_bounds() -> None:
    at = Turns()
    leading = Asked(given(0.0))
    other_type = {name: array.astype(np.float64) for name, array in given(4.0).items()}
    queued = [Asked(each) for each in (given(1.0, 3), other_type, given(2.0), given(3.0, 2), None)]
    for each in queued:
        at.enter(each)
    assert at.try_take()
    assert at.company(leading, 5, 10**6) == [queued[0], queued[2]]
    assert at.company(leading, 8, leading.size_bytes) == []
    at.put_back([queued[0]])
    assert at.company(leading, 8, 10**6) == [queued[3]], "what failed in company is computed alone"
    at.drop(queued[3])
    at.put_back([queued[3]])
    assert len(at) == 3
    assert at.company(Asked(), 8, 10**6) == []


class Costly:
    """A real model that takes its time: so much for each run, and so much for each sample."""

    platform, accelerator = "onnxruntime_onnx", "cpu"

    def __init__(self, model: LoadedModel, run_ms: float, sample_ms: float, *, mixes: bool = False) -> None:
        self._model, self._run_ms, self._sample_ms, self._mixes = model, run_ms, sample_ms, mixes

    def infer(self, inputs: Tensors) -> Outputs:
        """Answer; one that mixes lets each sample depend on all."""
        end_s = time.perf_counter() + (self._run_ms + self._sample_ms * len(inputs["pixels"])) / 1000
        outputs = self._model.infer(inputs)
        while time.perf_counter() < end_s:
            pass
        if self._mixes:
            return {name: values + values.mean(axis=0) for name, values in outputs.items()}
        return outputs


@pytest.mark.parametrize(
    ("cost_ms", "mixes", "limit", "joined"),
    [
        ((2.0, 0.1), False, 16, 16),
        ((2.0, 0.1), False, 2, 2),
        ((2.0, 0.1), False, 1, 1),
        ((2.0, 0.1), True, 16, 1),
        ((0.1, 1.0), False, 16, 1),
        ((0.05, 0.0), False, 16, 1),
        ((60.0, 0.0), False, 16, 4),
        ((300.0, 0.0), False, 16, 1),
    ],
    ids=["pays", "pays for two", "off", "mixes", "does not pay", "too quick", "slow", "too slow"],
)
def test_runs_are_joined_where_it_pays_and_changes_nothing(
    tmp_path: Path, cost_ms: tuple[float, float], mixes: bool, limit: int, joined: int
) -> None:
    slot = unpack(build(1), tmp_path)
    model = Costly(loaded(slot), *cost_ms, mixes=mixes)
    eventually(lambda: joinable_samples(model, slot.manifest, slot.variant, slot.folder, limit) == joined)


@pytest.mark.parametrize(
    "changes", [{"batch": 2}, {"golden_error": 0.0}], ids=["batch of two", "golden gone"]
)
def test_runs_are_not_joined_where_that_cannot_be_tried(tmp_path: Path, changes: dict[str, Any]) -> None:
    slot = unpack(build(1, **changes), tmp_path)
    model = Costly(loaded(slot), 2.0, 0.0)
    if "batch" not in changes:
        (slot.folder / slot.manifest.golden_inputs[0].name).unlink()
    assert joinable_samples(model, slot.manifest, slot.variant, slot.folder, 16) == 1


def loaded(slot: Slot) -> LoadedModel:
    return open_plainly(slot, "onnxruntime")


def test_a_run_is_counted_once_and_by_its_size() -> None:
    statistics = Statistics()
    for samples, is_guest in ((1, False), (2, False), (3, True)):
        statistics.succeeded(1.0, samples, compute_infer=10)
        if not is_guest:
            statistics.ran(5 if samples == 2 else samples, 1, 10, 2)
    document = statistics.document("digits", 1)
    assert (document["inference_count"], document["execution_count"]) == (6, 2)
    assert document["inference_stats"]["compute_infer"] == {"count": 3, "ns": 30}
    assert document["batch_stats"] == [
        {
            "batch_size": size,
            "compute_input": {"count": 1, "ns": 1},
            "compute_infer": {"count": 1, "ns": 10},
            "compute_output": {"count": 1, "ns": 2},
        }
        for size in (1, 5)
    ]


def test_an_execution_joins_nothing_unless_it_is_told(tmp_path: Path) -> None:
    slot = unpack(build(1), tmp_path)
    model = Watched(loaded(slot))
    execution = Execution(model, ThreadPoolExecutor(1), 5.0)
    model.may_go_on.clear()
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(execution.run, given(1.0)) for _ in range(3)]
        eventually(lambda: len(execution._turns) == 2)
        model.may_go_on.set()
        assert all(len(each.result()[0]["probabilities"]) == 1 for each in asked)
    assert model.runs == [1, 1, 1]


def test_a_version_that_answers_no_more_is_gone_at_once(tmp_path: Path) -> None:
    """Not when Python next looks for cycles: its weights would stay in memory beside its successor's."""

    async def run() -> None:
        hosted = await load_bundle(build(1), tmp_path)
        hosted.infer_now(given(1.0))
        model = weakref.ref(hosted._model)
        hosted.close()
        del hosted
        assert model() is None

    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()
