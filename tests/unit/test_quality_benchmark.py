"""The quality benchmark judges cases that are what they are called."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality_cases import GRADES, Case, cases
from benchmarks.quality_simulation import ERRORS, LABELS_BEFORE, error_streams, intervals, labels_until_alarm


@pytest.fixture(name="drawn", scope="module")
def drawn_fixture() -> list[Case]:
    """Every case of one seed."""
    return list(cases(1))


def test_inputs_get_harder_by_degrees(drawn: list[Case]) -> None:
    assert {(case.task, case.model) for case in drawn} == {
        ("Gaussians", "logistic"),
        *((task, model) for task in ("digits, noise", "digits, veil") for model in ("logistic", "MLP")),
    }
    for case in drawn:
        accuracies = [float((answers.argmax(axis=1) == right).mean()) for answers, right in case.current]
        held_out = float((case.answers.argmax(axis=1) == case.labels).mean())
        assert len(accuracies) == len(GRADES)
        assert abs(accuracies[0] - held_out) < 0.06
        assert accuracies[-1] < accuracies[0] - 0.01


def test_the_same_seed_gives_the_same_cases(drawn: list[Case]) -> None:
    again = next(iter(cases(1)))
    assert all(
        np.array_equal(ours[0], theirs[0])
        for ours, theirs in zip(again.current, drawn[0].current, strict=True)
    )


def test_confidences_that_tell_nothing_do_not_widen_the_interval() -> None:
    found = intervals(np.random.default_rng(1), "tells nothing", 50, 20)
    assert found.width["with confidences"] < 1.1 * found.width["labels alone"]
    assert found.width["labels alone"] < found.width["labels alone, at every look"]


def test_streams_have_more_errors_from_a_time_on() -> None:
    rng = np.random.default_rng(2)
    streams = error_streams(rng, 0.2, 20)
    assert streams[:, :LABELS_BEFORE].mean() == pytest.approx(ERRORS, abs=0.01)
    assert streams[:, LABELS_BEFORE:].mean() == pytest.approx(ERRORS + 0.2, abs=0.01)
    found = [labels_until_alarm(rng, stream) for stream in streams[:5]]
    assert all(alarm is not None and alarm > LABELS_BEFORE for alarm in found)
