"""What estimates of quality promise: intervals that hold the truth, and no more false alarms than stated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from fleet.drift.alarms import AlarmChange
from fleet.drift.profile import count
from fleet.protocol.labels import LabelledCells, Labels
from fleet.quality.calibration import Calibration, calibration_of, folded, folded_labels, labelled_cells
from fleet.quality.cbpe import cbpe
from fleet.quality.concept import ConceptState, look, look_evidence, normal_angle
from fleet.quality.powered import Powered, prediction_powered
from tests.support.confidences import Answers, answers_of, reference_of

CURRENT = 1500
TRIALS = 80


def _calibration(rng: np.random.Generator, held_out: int, sure: float) -> Calibration:
    calibration = calibration_of(reference_of(answers_of(rng, held_out, sure=sure)))
    assert calibration is not None
    return calibration


def _bins(answers: Answers) -> NDArray[np.float64]:
    reference = reference_of(answers_of(np.random.default_rng(0), 50))
    return folded(count(reference.features[0], answers.confidences).cells)


@pytest.mark.parametrize("held_out", [100, 400, 2000])
@pytest.mark.parametrize(("sure", "unsure"), [(8.0, 1.0), (4.8, 1.3)], ids=["no shift", "a shift"])
def test_the_interval_without_labels_holds_the_accuracy_where_confidence_keeps_its_meaning(
    held_out: int, sure: float, unsure: float
) -> None:
    rng, held = np.random.default_rng(held_out), 0
    for _ in range(TRIALS):
        calibration = _calibration(rng, held_out, 8.0)
        current = answers_of(rng, CURRENT, sure=sure, unsure=unsure)
        found = cbpe(calibration, _bins(current))
        held += found.lower <= current.right.mean() <= found.upper
    assert held / TRIALS >= 0.9


@pytest.mark.parametrize("labels", [15, 40, 150])
@pytest.mark.parametrize("wrong", [0.0, 0.3], ids=["as calibrated", "calibrated for something else"])
def test_the_interval_of_few_labels_holds_the_accuracy_whatever_calibration_is_worth(
    labels: int, wrong: float
) -> None:
    rng, held = np.random.default_rng(labels), 0
    for _ in range(TRIALS):
        calibration = _calibration(rng, 400, 3.0)
        current = answers_of(rng, CURRENT, sure=3.0, unsure=1.5, wrong=wrong)
        found = _powered(rng, calibration, current, labels)
        held += found.estimate.lower <= current.right.mean() <= found.estimate.upper
    assert held / TRIALS >= 0.92


def test_confidences_are_worth_labels_where_they_tell_right_from_wrong() -> None:
    rng = np.random.default_rng(3)
    calibration = _calibration(rng, 2000, 1.0)
    worth = [_powered(rng, calibration, answers_of(rng, CURRENT, sure=1.0), 150).worth for _ in range(30)]
    assert float(np.mean(worth)) > 1.2 * 150


def _powered(rng: np.random.Generator, calibration: Calibration, current: Answers, labels: int) -> Powered:
    chosen = current.some(rng.choice(len(current.right), labels, replace=False))
    right = chosen.some(np.flatnonzero(chosen.right))
    found = prediction_powered(calibration, _bins(current), _bins(chosen), _bins(right))
    assert found is not None
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 200), min_size=20, max_size=20),
    st.lists(st.floats(0.0, 1.0), min_size=20, max_size=20),
)
def test_chances_are_probabilities_and_predict_the_held_out_accuracy(
    answers: list[int], shares: list[float]
) -> None:
    if not any(answers):
        return
    reference = reference_of(answers_of(np.random.default_rng(0), 50)).features[0]
    correct = [int(number * share) for number, share in zip(answers, shares, strict=True)]
    known = type(reference)(
        name=reference.name, cells=(0, *answers, 0), edges=reference.edges, correct=(0, *correct, 0)
    )
    calibration = calibration_of(type(reference_of(answers_of(np.random.default_rng(0), 50)))((known,)))
    assert calibration is not None
    assert ((calibration.chance >= 0.0) & (calibration.chance <= 1.0)).all()
    found = cbpe(calibration, calibration.answers)
    pooled = 20.0  # each of so many levels at most may be moved by one answer, the model's own word
    assert abs(found.value - calibration.accuracy) <= pooled / calibration.samples + 1e-9
    assert 0.0 <= found.lower <= found.value <= found.upper <= 1.0


CELLS = st.dictionaries(
    st.integers(0, 21),
    st.integers(1, 50).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    max_size=22,
)


@settings(max_examples=40, deadline=None)
@given(CELLS, CELLS, CELLS, st.integers(0, 5))
def test_labels_are_added_in_any_order(
    a: LabelledCells, b: LabelledCells, c: LabelledCells, unknown: int
) -> None:
    left, middle, right = Labels(a, unknown), Labels(b), Labels(c, 1)
    assert left.merged(middle).merged(right) == right.merged(middle.merged(left))
    total = left.merged(middle).merged(right)
    assert total.unknown == unknown + 1
    labelled, correct = folded_labels(total.by_confidence, 20)
    assert labelled.sum() == sum(n for cells in (a, b, c) for n, _ in cells.values())
    assert correct.sum() == sum(k for cells in (a, b, c) for _, k in cells.values())
    assert total.contradiction(int(labelled.sum()), int(correct.sum())) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), max_size=40))
def test_labels_fall_into_the_cells_of_their_answers(labelled: list[tuple[float, bool]]) -> None:
    reference = reference_of(answers_of(np.random.default_rng(0), 50))
    confidences, right = [c for c, _ in labelled], [r for _, r in labelled]
    cells = labelled_cells(reference, right, confidences)
    counted = count(reference.features[0], np.array(confidences)).cells
    assert {cell: n for cell, (n, _) in cells.items()} == {i: n for i, n in enumerate(counted) if n}
    assert sum(k for _, k in cells.values()) == sum(right)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(0, 300), st.integers(1, 300), st.integers(1, 60), st.floats(0.0, 1.0))
def test_for_any_normal_share_of_errors_the_e_value_is_one_at_most_on_average(
    wrong: int, right: int, labelled: int, where: float
) -> None:
    """Exactly, by summing over every count that can come."""
    angle = normal_angle(wrong, wrong + right)
    share = math.sin(where * angle) ** 2
    counts = np.arange(labelled + 1)
    e_values = [10.0 ** look_evidence(angle, int(k), labelled) for k in counts]
    assert float(np.dot(stats.binom.pmf(counts, labelled, share), e_values)) <= 1.0 + 1e-9


def _first_alarm(rng: np.random.Generator, shares: list[float], held_out: int, labels: int) -> int | None:
    angle = normal_angle(int(rng.binomial(held_out, shares[0])), held_out)
    state = ConceptState()
    for number, share in enumerate(shares):
        state, change = look(state.counted(labels, int(rng.binomial(labels, share))), angle, watched=8)
        if change is AlarmChange.RAISED:
            return number
    return None


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_errors_as_ever_raise_no_alarm(share: float) -> None:
    rng = np.random.default_rng(5)
    alarms = [_first_alarm(rng, [share] * 60, 300, 30) for _ in range(100)]
    assert sum(alarm is not None for alarm in alarms) <= 5


def test_more_errors_raise_the_alarm_soon_and_after_they_began() -> None:
    rng = np.random.default_rng(6)
    alarms = [_first_alarm(rng, [0.04] * 10 + [0.25] * 20, 400, 40) for _ in range(50)]
    assert all(alarm is not None and alarm >= 10 for alarm in alarms)
    assert float(np.median([alarm for alarm in alarms if alarm is not None])) <= 16


def test_an_alarm_ends_when_errors_are_as_before_and_the_evidence_starts_anew() -> None:
    angle, state = normal_angle(4, 100), ConceptState()
    for _ in range(8):
        state, _ = look(state.counted(30, 15), angle)
    assert state.raised
    changes = []
    for _ in range(2):
        state, change = look(state.counted(30, 1), angle)
        changes.append(change)
    assert changes == [AlarmChange.NONE, AlarmChange.CLEARED]
    assert not state.raised and state.evidence < 0.0
