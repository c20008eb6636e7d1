"""Labels on a device: counted by the confidence of their answers, and what labels nothing is counted too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from agent.hosting.answers import Answer
from agent.hosting.host import Host
from agent.hosting.hosted import Hosted
from agent.serving.feedback import Feedback
from fleet.drift.features import OUTPUT_CONFIDENCE
from fleet.drift.profile import count
from fleet.protocol.errors import InvalidMessage, NotFound
from fleet.protocol.records import TelemetryWindow
from fleet.protocol.windows import contradiction
from tests.support.agent_bundles import build, build_halving, load_bundle
from tests.support.agent_models import PIXELS

MODEL = "digits"
IMAGES = np.random.default_rng(4).random((6, PIXELS), dtype=np.float32)
Work = Callable[[Host, Hosted, Feedback], Awaitable[None]]


def _window(folder: Path, work: Work) -> TelemetryWindow:
    """Return what is counted while work is done with a served model."""

    async def run() -> TelemetryWindow:
        host, hosted = Host(), await load_bundle(build(1), folder)
        host.put(MODEL, hosted)
        await work(host, hosted, Feedback(host))
        (window,) = host.close_windows(9.0)
        return window

    return asyncio.run(run())


def _scores(answer: Answer) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    assert answer.scores is not None
    return answer.scores.copy()


@pytest.mark.parametrize("shots", [1, 3], ids=["one by one", "together"])
def test_labels_are_counted_in_the_cell_of_their_answer(tmp_path: Path, shots: int) -> None:
    confidences: list[float] = []

    async def work(_: Host, hosted: Hosted, feedback: Feedback) -> None:
        for first in range(0, len(IMAGES), shots):
            answer = await hosted.infer({"pixels": IMAGES[first : first + shots]})
            number = feedback.remember(MODEL, answer, ())
            scores = _scores(answer)
            assert number is not None
            confidences.extend(scores.max(axis=1).tolist())
            truth = scores.argmax(axis=1)
            truth[0] = 1 - truth[0]  # the first of each is wrong
            found = feedback.label(MODEL, number, truth.tolist())
            assert (found.labelled, found.correct) == (shots, shots - 1)

    window = _window(tmp_path, work)
    reference = next(f for f in build(1).manifest.reference.features if f.name == OUTPUT_CONFIDENCE)
    cells = count(reference, np.array(confidences)).cells
    by_confidence = window.label_counts.by_confidence
    assert {cell: labelled for cell, (labelled, _) in by_confidence.items()} == {
        cell: number for cell, number in enumerate(cells) if number
    }
    assert sum(correct for _, correct in by_confidence.values()) == window.correct
    assert (window.labelled, window.label_counts.unknown) == (len(IMAGES), 0)
    assert contradiction(window) is None


def test_labels_for_what_is_not_known_are_refused_and_counted(tmp_path: Path) -> None:
    async def work(_: Host, hosted: Hosted, feedback: Feedback) -> None:
        number = feedback.remember(MODEL, await hosted.infer({"pixels": IMAGES[:1]}), ())
        assert number is not None
        with pytest.raises(InvalidMessage):
            feedback.label(MODEL, number, [0, 1])  # known, but of another number of samples
        feedback.label(MODEL, number, [0])
        for model in (MODEL, None):
            with pytest.raises(NotFound):
                feedback.label(model, number, [0])  # labelled already
        with pytest.raises(NotFound):
            feedback.label("no such model", number + 1, [0])

    window = _window(tmp_path, work)
    assert (window.labelled, window.label_counts.unknown) == (1, 2)
    assert contradiction(window) is None


def test_a_model_without_classes_has_nothing_to_label(tmp_path: Path) -> None:
    async def run() -> None:
        hosted = await load_bundle(build_halving(), tmp_path)
        shape = hosted.manifest.signature.inputs[0].shape[1:]
        answer = await hosted.infer(
            {hosted.manifest.signature.inputs[0].name: np.zeros((1, *shape), np.float32)}
        )
        assert Feedback(Host()).remember("halving", answer, ()) is None

    asyncio.run(run())
