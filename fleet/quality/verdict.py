"""What can be said about the quality of a version's answers from counts, over any devices and any time."""

from __future__ import annotations

from typing import NamedTuple

from fleet.drift.profile import FeatureCounts, FeatureReference, Profile, ReferenceProfile
from fleet.protocol.labels import Labels
from fleet.quality.atc import atc
from fleet.quality.calibration import (
    Calibration,
    calibration_of,
    confidence_of,
    counted_confidence,
    folded,
    folded_labels,
)
from fleet.quality.cbpe import cbpe
from fleet.quality.concept import ConceptState
from fleet.quality.doubts import (
    NO_ANSWERS,
    NO_CONFIDENCE,
    NOT_CALIBRATED,
    Doubt,
    disagreement,
    doubts_of_answers,
    doubts_of_labels,
)
from fleet.quality.interval import MISSED_RATE, Estimate
from fleet.quality.powered import LEAST_LABELS, Powered, prediction_powered
from fleet.rollout.gates.confidence import proportion_interval


class Counted(NamedTuple):
    """What devices counted of a version, added up.

    Attributes:
        answers: Answers given.
        labelled: Those for which a label came back.
        correct: Those of them that were right.
        labels: What else is known of labels.
        profile: Counts by feature.
    """

    answers: int
    labelled: int
    correct: int
    labels: Labels
    profile: Profile


class Quality(NamedTuple):
    """What is known.

    Attributes:
        answers: How many answers there were.
        held_out: Accuracy on the held-out samples; None if it was not measured.
        held_out_samples: How many of those there were.
        estimated: The accuracy by `fleet.quality.cbpe`, without any label; None if there is no telling.
        thresholded: The same by `fleet.quality.atc`.
        labelled: Labelled answers,
        correct: and how many of them were right.
        accuracy: Their share, with an interval that holds however often one looks; None without labels.
        powered: What labels and confidences say together; None with fewer than 10 labels.
        harder: Whether labelled answers are wrong no more often than their confidences say; None if not
        known.
        unknown_labels: How often labels came for predictions that the devices did not know.
        doubts: Why not to believe it.
    """

    answers: int
    held_out: float | None
    held_out_samples: int
    estimated: Estimate | None
    thresholded: float | None
    labelled: int
    correct: int
    accuracy: Estimate | None
    powered: Powered | None
    harder: bool | None
    unknown_labels: int
    doubts: tuple[Doubt, ...]


def judge(reference: ReferenceProfile, counted: Counted) -> Quality:
    """Return what counts say.

    Args:
        reference: Of the version.
        counted: Of the version as well.
    """
    labelled, correct = counted.labelled, min(counted.correct, counted.labelled)
    known = Quality(
        answers=counted.answers,
        held_out=None,
        held_out_samples=0,
        estimated=None,
        thresholded=None,
        labelled=labelled,
        correct=correct,
        accuracy=_accuracy(labelled, correct),
        powered=None,
        harder=None,
        unknown_labels=counted.labels.unknown,
        doubts=(),
    )
    confidence = confidence_of(reference)
    if confidence is None:
        return known._replace(doubts=(NO_CONFIDENCE,))
    calibration = calibration_of(reference)
    if calibration is None:
        return known._replace(doubts=(NOT_CALIBRATED,))
    known = known._replace(held_out=calibration.accuracy, held_out_samples=calibration.samples)
    counts = counted_confidence(counted.profile, len(calibration.answers))
    if counts is None:
        return known._replace(doubts=(NO_ANSWERS,))
    return _with_confidences(known, calibration, confidence, counts, counted.labels)


def sentence(quality: Quality) -> str:
    """Return the most that can be said in one sentence, for people."""
    held_out = (
        f"; on {quality.held_out_samples:,} held-out samples it was {quality.held_out:.1%}"
        if quality.held_out is not None
        else ""
    )
    if quality.powered is not None:
        return (
            f"{_shown(quality.powered.estimate)} of the answers are right, by {quality.labelled:,} labels and"
            f" the confidence of {quality.answers:,} answers{held_out}."
        )
    if quality.estimated is not None:
        return (
            f"{_shown(quality.estimated)} of the answers are right, estimated without labels from the"
            f" confidence of {quality.answers:,} answers{held_out}."
        )
    if quality.accuracy is not None:
        return f"{_shown(quality.accuracy)} of {quality.labelled:,} labelled answers are right{held_out}."
    return f"Nothing can be said about {quality.answers:,} answers{held_out}."


def concept_sentence(state: ConceptState, quality: Quality) -> str:
    """Return what the test for concept drift says, for people.

    Args:
        state: Of the test.
        quality: Of the same answers, for the reason.
    """
    if not state.looks:
        return f"There are too few labels to look for concept drift: {state.labelled} since the start."
    if not state.raised:
        return f"Labels show no concept drift after {state.looks} looks."
    found = f"Answers are wrong too often: {state.last_wrong} of the last {state.last_labelled} labelled ones"
    if quality.harder is None:
        return f"{found}."
    if quality.harder:
        return f"{found}; the model is unsure of them, so the inputs became harder."
    return (
        f"{found}, although the model is as sure as ever: what is right has changed (concept drift), or the"
        " inputs are unlike any before."
    )


def _with_confidences(
    known: Quality,
    calibration: Calibration,
    confidence: FeatureReference,
    counts: FeatureCounts,
    known_labels: Labels,
) -> Quality:
    answers = folded(counts.cells)
    labels, right = folded_labels(known_labels.by_confidence, len(answers))
    estimated, thresholded = cbpe(calibration, answers), atc(calibration, confidence, counts)
    has_labels = labels.sum() >= LEAST_LABELS
    doubts = doubts_of_answers(calibration, answers)
    return known._replace(
        estimated=estimated,
        thresholded=thresholded,
        powered=prediction_powered(calibration, answers, labels, right),
        harder=disagreement(calibration, labels, right) >= 0 if has_labels else None,
        doubts=(*doubts, *doubts_of_labels(calibration, answers, labels, right)),
    )


def _accuracy(labelled: int, correct: int) -> Estimate | None:
    if not labelled:
        return None
    return Estimate(correct / labelled, *proportion_interval(correct, labelled, MISSED_RATE))


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ({estimate.lower:.1%} to {estimate.upper:.1%})"
