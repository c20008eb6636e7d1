"""What a candidate is counted for beside the version that answers, with real models and no threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.hosting.hosted import Hosted
from agent.life.comparison import PAIRS_IN_MEMORY, Comparison
from fleet.protocol.errors import ShadowFailed
from fleet.protocol.records import MAX_PAIRS
from fleet.protocol.shadow import contradiction
from tests.support.agent_bundles import (
    Bundle,
    build,
    build_halving,
    build_tabular,
    build_word_score,
    load_bundle,
)


def comparison(active: Bundle, candidate: Bundle, folder: Path) -> Comparison:
    """Return a comparison of two bundles that are really loaded."""

    async def load(bundle: Bundle, name: str) -> Hosted:
        (folder / name).mkdir()
        hosted = await load_bundle(bundle, folder / name)
        hosted.close()  # nobody is to ask it
        return hosted

    answers, computes = asyncio.run(load(active, "active")), asyncio.run(load(candidate, "candidate"))
    return Comparison(answers, computes, "d-2")


@pytest.mark.parametrize("other", [build_tabular, build_word_score, build_halving])
def test_versions_that_are_asked_differently_cannot_be_compared(
    tmp_path: Path, other: Callable[[int], Bundle]
) -> None:
    with pytest.raises(ShadowFailed, match="cannot be compared with version 1"):
        comparison(build(1), other(2), tmp_path)


def test_reports_hold_what_came_since_the_last_and_the_first_is_told_empty(tmp_path: Path) -> None:
    compared = comparison(build(1), build(2), tmp_path)
    first = compared.take_report()
    assert first is not None
    assert (first.compared, first.left_out) == (0, 0)
    assert compared.take_report() is None
    answers = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    outputs = {"probabilities": np.eye(3, dtype=np.float32)[[0, 2, 2, 1]]}
    compared.count(answers, outputs, active_us=10.0, candidate_us=40.0)
    compared.leave_out(3)
    second = compared.take_report()
    assert second is not None
    assert (second.compared, second.disagreed, second.left_out) == (4, 2, 3)
    assert second.pairs == ((0, 1, 1), (1, 2, 1))
    assert sum(second.active_latency.values()) == sum(second.candidate_latency.values()) == 1
    assert second.started_at_s == first.ended_at_s
    assert contradiction(second) is None
    assert compared.take_report() is None


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (np.full((2, 3), np.nan, dtype=np.float32), (0, 1)),
        (np.full((2, 3), np.inf, dtype=np.float32), (0, 1)),
        (np.zeros((1, 3), dtype=np.float32), (1, 0)),
        (np.zeros((2, 0), dtype=np.float32), (1, 0)),
    ],
)
def test_what_is_no_answer_fails_and_is_counted(
    tmp_path: Path, answer: NDArray[np.float32], counted: tuple[int, int]
) -> None:
    compared = comparison(build(1), build(2), tmp_path)
    with pytest.raises(ShadowFailed, match="on an input that version 1 answered"):
        compared.count(
            np.eye(3, dtype=np.float32)[[0, 1]], {"probabilities": answer}, active_us=1.0, candidate_us=1.0
        )
    report = compared.take_report()
    assert report is not None
    assert (report.errors, report.not_finite) == counted
    assert (report.compared, report.active_latency) == (0, {})


def test_however_many_pairs_of_classes_there_are_the_lowest_are_told_whole(tmp_path: Path) -> None:
    classes = 100
    compared = comparison(build(1), build(2), tmp_path)
    one_hot = np.eye(classes, dtype=np.float32)
    for _ in range(2):
        for shift in range(1, classes):
            given = {"probabilities": np.roll(one_hot, shift, axis=1)}
            compared.count(one_hot, given, active_us=1.0, candidate_us=1.0)
    held = compared._pairs
    assert len(held) <= PAIRS_IN_MEMORY < classes * (classes - 1)
    report = compared.take_report()
    assert report is not None
    assert report.disagreed == 2 * classes * (classes - 1)
    lowest = [
        (active, candidate, 2) for active in range(4) for candidate in range(classes) if active != candidate
    ]
    assert list(report.pairs) == lowest[:MAX_PAIRS]
