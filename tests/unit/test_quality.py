"""What is said of the quality of answers, and when it is said not to believe it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from fleet.drift.features import OUTPUT_CONFIDENCE, build_reference
from fleet.drift.profile import ReferenceProfile, count
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.labels import Labels
from fleet.protocol.messages import Record, decode, encode
from fleet.protocol.records import TelemetryWindow
from fleet.protocol.windows import check_window, contradiction, merge_windows
from fleet.quality.atc import atc
from fleet.quality.calibration import calibration_of, with_correct
from fleet.quality.concept import ConceptState, look, normal_angle
from fleet.quality.doubts import DoubtCode
from fleet.quality.verdict import Counted, Quality, concept_sentence, sentence
from fleet.quality.verdict import judge as judge_counts
from tests.support.confidences import Answers, answers_of, reference_of, window_of

RNG = np.random.default_rng(11)
HELD_OUT = answers_of(RNG, 1000)
REFERENCE = reference_of(HELD_OUT)
NONE = Answers(np.zeros(0), np.zeros(0, dtype=np.bool_))


def judge(reference: ReferenceProfile, window: TelemetryWindow) -> Quality:
    counted = Counted(
        window.predictions, window.labelled, window.correct, window.label_counts, window.profile
    )
    return judge_counts(reference, counted)


def _codes(quality: Quality) -> set[DoubtCode]:
    return {doubt.code for doubt in quality.doubts}


def test_of_answers_like_the_held_out_ones_nothing_is_doubted() -> None:
    current = answers_of(RNG, 2000)
    quality = judge(REFERENCE, window_of(REFERENCE, current, NONE))
    assert quality.estimated is not None and quality.thresholded is not None
    assert quality.held_out == pytest.approx(HELD_OUT.right.mean())
    assert quality.estimated.value == pytest.approx(current.right.mean(), abs=0.03)
    assert quality.thresholded == pytest.approx(quality.held_out, abs=0.03)
    assert not quality.doubts and quality.powered is None and quality.accuracy is None
    assert "without labels" in sentence(quality)


def test_average_thresholded_confidence_of_the_held_out_answers_is_their_accuracy() -> None:
    calibration, confidence = calibration_of(REFERENCE), REFERENCE.features[0]
    assert calibration is not None
    same = count(confidence, HELD_OUT.confidences)
    assert atc(calibration, confidence, same) == pytest.approx(calibration.accuracy, abs=1e-9)
    assert atc(calibration, confidence, count(confidence, HELD_OUT.confidences * 0.8)) < calibration.accuracy


def test_harder_inputs_lower_the_estimate() -> None:
    harder = answers_of(RNG, 2000, sure=4.0, unsure=1.5)
    quality = judge(REFERENCE, window_of(REFERENCE, harder, NONE))
    assert quality.estimated is not None and quality.held_out is not None
    assert quality.estimated.upper < quality.held_out
    assert quality.estimated.lower <= harder.right.mean() <= quality.estimated.upper


def test_a_confidence_that_no_held_out_answer_had_is_doubted() -> None:
    unsure = Answers(np.full(200, 0.22), RNG.random(200) < 0.5)
    assert DoubtCode.UNLIKE_HELD_OUT in _codes(judge(REFERENCE, window_of(REFERENCE, unsure, NONE)))


def test_labels_that_say_otherwise_than_confidences_are_told_from_harder_inputs() -> None:
    wrong = answers_of(RNG, 1000, wrong=0.3)
    changed = judge(REFERENCE, window_of(REFERENCE, wrong, wrong.some(np.arange(300))))
    assert DoubtCode.LABELS_DISAGREE in _codes(changed) and changed.harder is False
    hard = answers_of(RNG, 1000, sure=4.0, unsure=1.5)
    harder = judge(REFERENCE, window_of(REFERENCE, hard, hard.some(np.arange(300))))
    assert harder.harder is True and DoubtCode.LABELS_DISAGREE not in _codes(harder)
    state, angle = ConceptState(), normal_angle(100, 1000)
    for _ in range(5):
        state, _ = look(state.counted(60, 30), angle)
    assert "concept drift" in concept_sentence(state, changed)
    assert "harder" in concept_sentence(state, harder)
    assert "too few labels" in concept_sentence(ConceptState(labelled=3), harder)


def test_labels_of_strange_answers_only_are_doubted() -> None:
    current = answers_of(RNG, 2000)
    unsure = current.some(np.argsort(current.confidences)[:200])
    quality = judge(REFERENCE, window_of(REFERENCE, current, unsure))
    assert _codes(quality) == {DoubtCode.CHOSEN_LABELS}


def test_a_model_without_probabilities_and_an_old_manifest_say_so() -> None:
    margins = RNG.normal(size=(300, 3))
    labels = RNG.integers(0, 3, 300)
    reference = build_reference("classification", RNG.normal(size=(300, 4)), margins)
    assert with_correct(reference, margins, labels) == reference
    window = window_of(REFERENCE, HELD_OUT, HELD_OUT.some(np.arange(50)))
    quality = judge(reference, msgspec.structs.replace(window, profile={}))
    assert _codes(quality) == {DoubtCode.NO_CONFIDENCE}
    assert quality.accuracy is not None and "labelled" in sentence(quality)
    old = ReferenceProfile((msgspec.structs.replace(REFERENCE.features[0], correct=()),))
    assert _codes(judge(old, window)) == {DoubtCode.NOT_CALIBRATED}
    silent = msgspec.structs.replace(window, profile={}, labelled=0, correct=0, predictions=7)
    assert _codes(judge(REFERENCE, silent)) == {DoubtCode.NO_ANSWERS}
    assert "Nothing" in sentence(judge(REFERENCE, silent))


def test_calibration_counts_the_right_answers_of_each_cell() -> None:
    probabilities = RNG.dirichlet([0.4] * 4, 500)
    labels = np.where(RNG.random(500) < 0.8, probabilities.argmax(axis=1), 0)
    inputs = RNG.normal(size=(500, 3))
    reference = with_correct(build_reference("classification", inputs, probabilities), probabilities, labels)
    confidence = next(f for f in reference.features if f.name == OUTPUT_CONFIDENCE)
    calibration = calibration_of(reference)
    assert calibration is not None and calibration.samples == 500
    assert calibration.accuracy == pytest.approx((probabilities.argmax(axis=1) == labels).mean())
    assert all(right <= of for right, of in zip(confidence.correct, confidence.cells, strict=True))


WINDOW = window_of(REFERENCE, HELD_OUT, HELD_OUT.some(np.arange(100)))


def test_windows_with_labels_are_added_and_survive_the_wire() -> None:
    plain = msgspec.structs.replace(WINDOW, labels=msgspec.UNSET, labelled=0, correct=0)
    total = merge_windows(merge_windows(WINDOW, plain), WINDOW)
    assert total.label_counts == WINDOW.label_counts.merged(WINDOW.label_counts)
    assert merge_windows(plain, plain).labels is msgspec.UNSET
    body = decode(encode(Record("0" * 16, 1, WINDOW)), Record).body
    assert isinstance(body, TelemetryWindow) and body.label_counts == WINDOW.label_counts
    assert contradiction(total) is None


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(Labels({3: (2, 3)}), id="more correct than labelled"),
        pytest.param(Labels({3: (101, 50)}), id="more than the window has"),
        pytest.param(Labels({3: (100, 100)}), id="more correct than the window has"),
        pytest.param(Labels({3: (100, 0)}), id="more wrong than the window has"),
        pytest.param(Labels(unknown=2**50), id="more unknown ones than there can be"),
    ],
)
def test_labels_that_cannot_be_are_a_contradiction(labels: Labels) -> None:
    assert contradiction(msgspec.structs.replace(WINDOW, labels=labels)) is not None


def test_labels_in_a_cell_that_there_is_not_are_refused() -> None:
    check_window(WINDOW, "a" * 64, REFERENCE)
    with pytest.raises(InvalidMessage, match="cell 22"):
        check_window(msgspec.structs.replace(WINDOW, labels=Labels({22: (1, 1)})), "a" * 64, REFERENCE)
    with pytest.raises(InvalidMessage):
        without = ReferenceProfile(())
        check_window(msgspec.structs.replace(WINDOW, profile={}), "a" * 64, without)
