"""Models in memory: the self-test, what is counted, what a trial endures. With the real runtime."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.capabilities import measure
from agent.hosting.host import Host
from agent.hosting.hosted import Hosted
from agent.hosting.loading import load
from agent.life.trial import run_trial
from agent.settings import Settings
from agent.telemetry.window import Counter
from fleet.protocol.errors import InferenceFailed, NotFound, SelfTestFailed, TrialFailed, VariantUnsupported
from fleet.protocol.requirement import RuntimeVersion
from tests.support.agent_bundles import (
    TFLITE_VARIANT,
    VARIANT,
    Bundle,
    build,
    build_halving,
    build_tabular,
    build_word_score,
    load_bundle,
    unpack,
)
from tests.support.agent_models import PIXELS

GOOD = np.full((1, PIXELS), 0.5, dtype=np.float32)
BAD = -GOOD


async def loaded(folder: Path, version: int = 1, **given: Any) -> Hosted:
    return await load_bundle(build(version, **given), folder)


async def _infer(hosted: Hosted, values: NDArray[np.float32]) -> int:
    return (await hosted.infer({"pixels": values})).version


@pytest.mark.parametrize(
    "bundle",
    [
        build(1),
        build(1).ordering(TFLITE_VARIANT),
        build(1, batch=2),
        build_tabular(),
        build_word_score(),
        build_halving(),
    ],
    ids=["onnx", "tflite", "batches of two", "numbers and text", "text", "reconstruction"],
)
def test_the_self_test_passes_for_what_the_manifest_says(tmp_path: Path, bundle: Bundle) -> None:
    async def run() -> None:
        await (await load_bundle(bundle, tmp_path)).self_test()

    asyncio.run(run())


def test_a_batch_of_another_size_than_the_only_one_fails(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await loaded(tmp_path, batch=2)
        assert await _infer(hosted, np.repeat(GOOD, 2, axis=0)) == 1
        with pytest.raises(InferenceFailed):
            await _infer(hosted, GOOD)

    asyncio.run(run())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "golden_outputs.f32").write_bytes(b"\0" * 12),
        lambda folder: (folder / "golden_inputs.0").write_bytes(b"\0" * 3),
        lambda folder: (folder / "golden_inputs.0").write_bytes(
            np.full((8, PIXELS), np.nan, dtype="<f4").tobytes()
        ),
    ],
)
def test_the_self_test_fails_on_golden_files_that_do_not_fit(tmp_path: Path, spoil: Any) -> None:
    async def run() -> None:
        hosted = await loaded(tmp_path)
        spoil(tmp_path)
        with pytest.raises(SelfTestFailed):
            await hosted.self_test()

    asyncio.run(run())


@pytest.mark.parametrize("data", [b"", b"\x05\0\0\0lyon", b"\x01\0\0\0\xff" * 8])
def test_the_self_test_fails_on_golden_text_that_is_none(tmp_path: Path, data: bytes) -> None:
    async def run() -> None:
        hosted = await load_bundle(build_tabular(), tmp_path)
        (tmp_path / "golden_inputs.1").write_bytes(data)
        with pytest.raises(SelfTestFailed, match=r"golden_inputs\.1"):
            await hosted.self_test()

    asyncio.run(run())


def test_a_first_output_that_is_text_has_no_self_test(tmp_path: Path) -> None:
    bundle = build_tabular()
    signature = msgspec.structs.replace(
        bundle.manifest.signature, outputs=bundle.manifest.signature.outputs[::-1]
    )

    async def run() -> None:
        manifest = msgspec.structs.replace(bundle.manifest, signature=signature)
        hosted = await load_bundle(bundle._replace(manifest=manifest), tmp_path)
        with pytest.raises(SelfTestFailed, match="text"):
            await hosted.self_test()

    asyncio.run(run())


def test_the_self_test_fails_on_other_answers(tmp_path: Path) -> None:
    async def run() -> None:
        with pytest.raises(SelfTestFailed, match=r"differ by 0\.01"):
            await (await loaded(tmp_path, golden_error=0.01)).self_test()

    asyncio.run(run())


@pytest.mark.parametrize("contents", [b"", b"not a model", b"\x08\x08\x12\x00"])
def test_a_file_that_is_no_model_is_an_error_of_ours(tmp_path: Path, contents: bytes) -> None:
    slot = unpack(build(1), tmp_path)
    slot.model_path.write_bytes(contents)
    with pytest.raises(VariantUnsupported):
        asyncio.run(load(slot, measure(tmp_path), 5.0))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"architectures": ("abacus", "s390x")}, "abacus or s390x"),
        ({"peak_memory_bytes": 2**60}, "memory"),
        ({"runtimes": (RuntimeVersion("tflite-runtime", "2.14"),)}, "tflite-runtime>=2.14"),
        ({"runtimes": (RuntimeVersion("litert", "99.0"),)}, "litert>=99.0"),
    ],
)
def test_what_does_not_suit_the_device_is_not_even_opened(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    slot = unpack(build(1).ordering(TFLITE_VARIANT).requiring(**changes), tmp_path)
    slot.model_path.unlink()
    with pytest.raises(VariantUnsupported, match=why):
        asyncio.run(load(slot, measure(tmp_path), 5.0))


def test_what_the_runtime_refuses_is_an_error_of_ours_and_counted(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await loaded(tmp_path)
        with pytest.raises(InferenceFailed):
            await hosted.infer({"pixels": np.zeros((1, PIXELS + 1), dtype=np.float32)})
        window = hosted.counter.close(10.0)
        assert window is not None
        assert (window.errors, window.predictions) == (1, 0)

    asyncio.run(run())


def test_telemetry_counts_every_prediction_once(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await loaded(tmp_path)
        hosted.counter.begin(8.5)
        for size in (1, 70, 3):  # below, over and again below a block
            await hosted.infer({"pixels": np.full((size, PIXELS), 0.5, dtype=np.float32)})
        window = hosted.counter.close(9.0)
        assert window is not None
        assert (window.started_at_s, window.ended_at_s, window.predictions) == (8.5, 9.0, 74)
        assert sum(window.latency.values()) == 3
        assert {name: counts.total for name, counts in window.profile.items()} == dict.fromkeys(
            [feature.name for feature in hosted.manifest.reference.features], 74
        )
        assert {"output.class", "output.confidence", "input.mean", "input.contrast"} < window.profile.keys()
        assert hosted.counter.close(12.0) is None

    asyncio.run(run())


@pytest.mark.parametrize("end_s", [1.0, 2e9], ids=["backwards", "forwards"])
def test_a_window_is_as_long_as_it_lasted_when_the_clock_is_set(tmp_path: Path, end_s: float) -> None:
    async def run() -> None:
        hosted = await loaded(tmp_path)
        hosted.counter.begin(1e9)
        await hosted.infer({"pixels": np.full((1, PIXELS), 0.5, dtype=np.float32)})
        window = hosted.counter.close(end_s)
        assert window is not None
        assert window.ended_at_s == end_s
        assert 0.0 <= window.ended_at_s - window.started_at_s < 10.0

    asyncio.run(run())


def test_features_of_numbers_are_missing_where_a_model_takes_text_alone(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await load_bundle(build_word_score(), tmp_path)
        words = np.array([["known"], ["rare"], ["never seen"]], dtype=object)
        answer = await hosted.infer({"word": words})
        assert answer.outputs["score"].ravel().tolist() == [1.0, 0.25, -1.0]
        assert answer.classes is None
        window = hosted.counter.close(9.0)
        assert window is not None
        assert window.predictions == 3
        counted = {name: (counts.total, counts.missing) for name, counts in window.profile.items()}
        inputs = dict.fromkeys(["input.mean", "input.contrast", "input.0"], (0, 3))
        assert counted == {"output.score": (3, 0), **inputs}

    asyncio.run(run())


def test_a_reconstruction_is_profiled_by_its_error(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await load_bundle(build_halving(), tmp_path)
        frames = np.array([[[2.0, 2.0], [2.0, 2.0]], [[0.0, 0.0], [0.0, 4.0]]], dtype=np.float32)
        await hosted.infer({"frame": frames})
        window = hosted.counter.close(9.0)
        assert window is not None
        error = window.profile["output.error"]
        assert (error.total, error.minimum, error.maximum) == (2, 1.0, 1.0)
        assert window.profile["input.contrast"].maximum == pytest.approx(np.sqrt(3))

    asyncio.run(run())


def test_missing_numbers_are_counted_and_answered(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await load_bundle(build_tabular(), tmp_path)
        numbers = np.array([[np.nan, np.nan], [np.nan, 6.0]], dtype=np.float32)
        cities = np.array([["lyon"], ["oslo"]], dtype=object)
        answer = await hosted.infer({"numbers": numbers, "city": cities})
        assert answer.scores is not None and answer.scores.shape == (2, 2)
        window = hosted.counter.close(9.0)
        assert window is not None
        mean = window.profile["input.mean"]
        assert (mean.total, mean.missing, mean.maximum) == (1, 1, 6.0)

    asyncio.run(run())


def test_samples_of_several_shapes_are_counted_in_one_window() -> None:
    counter = Counter(build_halving().manifest, VARIANT, "0" * 64)
    for side in (2, 3, 2):
        frames = np.ones((1, side, side), dtype=np.float32)
        counter.count(frames, frames / 2, 10.0)
    window = counter.close(9.0)
    assert window is not None
    assert (window.predictions, window.profile["output.error"].total) == (3, 3)


def test_an_answer_that_is_no_reconstruction_is_a_failed_inference(tmp_path: Path) -> None:
    bundle = build(1)
    signature = msgspec.structs.replace(bundle.manifest.signature, task="reconstruction")
    manifest = msgspec.structs.replace(bundle.manifest, signature=signature)

    async def run() -> None:
        hosted = await load_bundle(bundle._replace(manifest=manifest), tmp_path)
        with pytest.raises(InferenceFailed, match="shape"):
            await hosted.infer({"pixels": GOOD})
        window = hosted.counter.close(9.0)
        assert window is not None
        assert (window.errors, window.predictions) == (1, 0)

    asyncio.run(run())


def test_a_swap_answers_every_request_from_one_version_or_the_other(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host()
        for number in (1, 2):
            (tmp_path / str(number)).mkdir()
        one = await loaded(tmp_path / "1", 1)
        two = await loaded(tmp_path / "2", 2)
        host.put("digits", one)
        before = [asyncio.create_task(_infer(host.answering("digits"), GOOD)) for _ in range(50)]
        await asyncio.sleep(0)
        host.put("digits", two)
        one.close()
        after = [asyncio.create_task(_infer(host.answering("digits"), GOOD)) for _ in range(50)]
        assert set(await asyncio.gather(*before)) == {1}
        assert set(await asyncio.gather(*after)) == {2}
        host.put("digits", None)
        with pytest.raises(NotFound):
            host.answering("digits")

    asyncio.run(run())


def test_a_label_counts_for_the_version_that_answered(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host()
        hosted = await loaded(tmp_path)
        counter = (await hosted.infer({"pixels": GOOD})).counter
        hosted.close()
        host.count_labels(counter, [True], [0.75])
        (window,) = host.close_windows(3.0)
        assert (window.version, window.labelled, window.correct) == (1, 1, 1)
        assert host.close_windows(4.0) == []

    asyncio.run(run())


TRIAL = Settings(trial_s=0.3, trial_maximum_errors=2, trial_limit_s=0.6)


def test_a_trial_passes_with_bounded_errors(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await loaded(tmp_path)
        trial = asyncio.create_task(run_trial(hosted, None, TRIAL))
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(InferenceFailed):
                await hosted.infer({"pixels": np.zeros((1, 9), dtype=np.float32)})
        await trial

    asyncio.run(run())


def test_a_trial_fails_on_one_error_more(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await loaded(tmp_path)
        trial = asyncio.create_task(run_trial(hosted, None, TRIAL))
        await asyncio.sleep(0)
        for _ in range(3):
            with pytest.raises(InferenceFailed):
                await hosted.infer({"pixels": np.zeros((1, 9), dtype=np.float32)})
        with pytest.raises(TrialFailed, match="3 inference"):
            await trial

    asyncio.run(run())


def test_a_trial_fails_on_one_answer_that_is_not_finite(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await loaded(tmp_path, negative_gives_nan=True)
        await hosted.self_test()
        trial = asyncio.create_task(run_trial(hosted, None, TRIAL))
        await asyncio.sleep(0)
        assert await _infer(hosted, GOOD) == 1
        with pytest.raises(InferenceFailed):
            await _infer(hosted, BAD)
        with pytest.raises(TrialFailed, match="not finite"):
            await trial

    asyncio.run(run())


def test_a_trial_that_lacks_evidence_fails(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await loaded(tmp_path)
        demanding = Settings(trial_s=0.1, trial_limit_s=0.3, trial_minimum_predictions=5)
        trial = asyncio.create_task(run_trial(hosted, None, demanding))
        await asyncio.sleep(0)
        await hosted.infer({"pixels": np.repeat(GOOD, 4, axis=0)})
        with pytest.raises(TrialFailed, match="Only 4"):
            await trial
        trial = asyncio.create_task(run_trial(hosted, None, demanding))
        await asyncio.sleep(0)
        await hosted.infer({"pixels": np.repeat(GOOD, 5, axis=0)})
        await trial

    asyncio.run(run())
