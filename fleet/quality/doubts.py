"""Doubts: when the numbers about quality must not be believed, and why.

======================  ===================================================================================
code                    when
======================  ===================================================================================
``no_confidence``       the model gives no probabilities (a margin classifier, or no classifier at all)
``not_calibrated``      the version was built without labels, or by a release that did not measure calibration
``no_answers``          nothing was answered, or by devices that do not count confidences
``few_answers``         fewer than `LEAST_ANSWERS` answers
``unlike_held_out``     more than `UNLIKE_SHARE` of the answers are of a confidence that hardly any held-out
                        answer had: their chances of being right are the model's own word
``labels_disagree``     the labelled answers are right more, or less, often than their confidences say: what a
                        confidence means has changed
``chosen_labels``       the labelled answers are surer, or less sure, than the others, by more than
                        `MOST_ERRORS` standard errors: labels do not speak for all answers
``inputs_drift``        drift alarms of inputs are raised: of inputs unlike any before, confidences may mean
                        something else
======================  ===================================================================================

The first three leave no estimate. No doubt is no proof: without labels nothing can be known of a model that
is as sure as ever and wrong (concept drift), see `fleet.quality.cbpe`.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

from fleet.quality.calibration import Calibration, Floats
from fleet.quality.cbpe import cbpe
from fleet.quality.powered import LEAST_LABELS
from fleet.rollout.gates.confidence import proportion_interval

LEAST_ANSWERS = 30
SEEN_ANSWERS = 5
"""Of a confidence that so many held-out answers had, something is known."""
UNLIKE_SHARE = 0.1
MOST_ERRORS = 4.0
_DISAGREEMENT_RATE = 0.01
"""How probable it is that labels which agree are ever said to disagree."""


class DoubtCode(StrEnum):
    """See the head of this file."""

    NO_CONFIDENCE = "no_confidence"
    NOT_CALIBRATED = "not_calibrated"
    NO_ANSWERS = "no_answers"
    FEW_ANSWERS = "few_answers"
    UNLIKE_HELD_OUT = "unlike_held_out"
    LABELS_DISAGREE = "labels_disagree"
    CHOSEN_LABELS = "chosen_labels"
    INPUTS_DRIFT = "inputs_drift"


class Doubt(NamedTuple):
    """One reason not to believe a number, and what is to be said about it."""

    code: DoubtCode
    sentence: str


NO_CONFIDENCE = Doubt(
    DoubtCode.NO_CONFIDENCE, "The model gives no probabilities, so nothing can be said without labels."
)
NOT_CALIBRATED = Doubt(
    DoubtCode.NOT_CALIBRATED,
    "The version was built without labels or by an older release, so what its confidences mean is not known.",
)
NO_ANSWERS = Doubt(DoubtCode.NO_ANSWERS, "No answers of which the confidence was counted have come.")


def inputs_drift(devices: int) -> Doubt:
    """Return the doubt that drift alarms of inputs raise, on so many devices."""
    where = "a device" if devices == 1 else f"{devices:,} devices"
    return Doubt(
        DoubtCode.INPUTS_DRIFT,
        f"Drift alarms of inputs are raised on {where}: confidences may mean something else there.",
    )


def doubts_of_answers(calibration: Calibration, answers: Floats) -> list[Doubt]:
    """Return the doubts about an estimate without labels.

    Args:
        calibration: Of the version.
        answers: How many fell into each bin of the confidence, shape (B,); at least one in all.
    """
    doubts, total = [], float(answers.sum())
    if total < LEAST_ANSWERS:
        doubts.append(Doubt(DoubtCode.FEW_ANSWERS, f"There are only {total:.0f} answers."))
    unlike = float(answers[calibration.answers < SEEN_ANSWERS].sum()) / total
    if unlike > UNLIKE_SHARE:
        sentence = f"{unlike:.0%} of the answers are of a confidence that hardly any held-out answer had."
        doubts.append(Doubt(DoubtCode.UNLIKE_HELD_OUT, sentence))
    return doubts


def doubts_of_labels(
    calibration: Calibration, answers: Floats, labelled: Floats, correct: Floats
) -> list[Doubt]:
    """Return the doubts that labels raise; none with fewer than `LEAST_LABELS`.

    Args:
        calibration: Of the version.
        answers: How many fell into each bin, labelled or not, shape (B,).
        labelled: How many of each bin were labelled, shape (B,).
        correct: How many of those were right, shape (B,).
    """
    labels = float(labelled.sum())
    if labels < LEAST_LABELS:
        return []
    doubts = []
    expected, right = cbpe(calibration, labelled), float(correct.sum()) / labels
    if disagreement(calibration, labelled, correct):
        sentence = f"{right:.1%} of the labelled answers are right, by their confidence {expected.value:.1%}."
        doubts.append(Doubt(DoubtCode.LABELS_DISAGREE, sentence))
    others = (answers - labelled).clip(min=0.0)
    if (rest := float(others.sum())) > 0.0:
        chance = calibration.chance
        both = (labelled + others) / (labels + rest)
        spread = float(both @ (chance * chance)) - float(both @ chance) ** 2
        apart = float(labelled @ chance) / labels - float(others @ chance) / rest
        if abs(apart) > MOST_ERRORS * math.sqrt(max(0.0, spread) * (1.0 / labels + 1.0 / rest)) + 1e-9:
            how = "surer" if apart > 0.0 else "less sure"
            sentence = f"The labelled answers are {how} than the others and do not speak for them."
            doubts.append(Doubt(DoubtCode.CHOSEN_LABELS, sentence))
    return doubts


def disagreement(calibration: Calibration, labelled: Floats, correct: Floats) -> int:
    """Return 1 if labelled answers are right more often than their confidences say, -1 if less often, else 0.

    Args:
        calibration: Of the version.
        labelled: How many answers of each bin were labelled, shape (B,); at least one in all.
        correct: How many of those were right, shape (B,).
    """
    expected = cbpe(calibration, labelled)
    found = proportion_interval(int(correct.sum()), int(labelled.sum()), _DISAGREEMENT_RATE)
    return int(found.lower > expected.upper) - int(found.upper < expected.lower)
