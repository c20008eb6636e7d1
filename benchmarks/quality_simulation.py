"""Simulated labels for the benchmark of quality: few of them, and those that come late."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.drift.alarms import AlarmChange
from fleet.drift.features import CONFIDENCE_EDGES, OUTPUT_CONFIDENCE
from fleet.drift.profile import FeatureReference, ReferenceProfile, count, numeric_reference
from fleet.quality.calibration import calibration_of, folded
from fleet.quality.concept import LABELS_PER_LOOK, ConceptState, look, normal_angle
from fleet.quality.interval import MISSED_RATE, Estimate, estimated
from fleet.quality.powered import prediction_powered
from fleet.rollout.gates.confidence import proportion_interval

Generator = np.random.Generator
Floats = NDArray[np.float64]
HELD_OUT = 400
ANSWERS = 5000
ERRORS = 0.05
"""Share of wrong answers before concept drift."""
LABELS_BEFORE, LABELS_AFTER = 1500, 3000
TELLING = {"tells much": 0.6, "tells some": 2.0, "tells nothing": 0.0}
"""How the chance of being right rises with the confidence: as a power of it, or not at all."""


class Intervals(NamedTuple):
    """How intervals of an accuracy did: the share that held it, and their mean width, by name."""

    held: dict[str, float]
    width: dict[str, float]


def intervals(rng: Generator, telling: str, labels: int, trials: int) -> Intervals:
    """Return how intervals from few labels did.

    Args:
        rng: Draws answers and labels.
        telling: One of `TELLING`.
        labels: How many answers are labelled.
        trials: How many fleets are drawn.
    """
    held: dict[str, list[bool]] = {}
    width: dict[str, list[float]] = {}
    for _ in range(trials):
        truth, found = _one_fleet(rng, telling, labels)
        for name, interval in found.items():
            held.setdefault(name, []).append(interval.lower <= truth <= interval.upper)
            width.setdefault(name, []).append(interval.upper - interval.lower)
    return Intervals(
        {name: float(np.mean(each)) for name, each in held.items()},
        {name: float(np.mean(each)) for name, each in width.items()},
    )


def error_streams(rng: Generator, more: float, streams: int) -> NDArray[np.int64]:
    """Return 1 for each label of a wrong answer, shape (streams, labels); more of them from a time on."""
    shares = np.concatenate([np.full(LABELS_BEFORE, ERRORS), np.full(LABELS_AFTER, ERRORS + more)])
    return (rng.random((streams, len(shares))) < shares).astype(np.int64)


def labels_until_alarm(rng: Generator, errors: NDArray[np.int64]) -> int | None:
    """Return how many labels come until the alarm is raised, with 100 devices watched; None if never."""
    angle, state = normal_angle(int(rng.binomial(HELD_OUT, ERRORS)), HELD_OUT), ConceptState()
    for first in range(0, len(errors) - LABELS_PER_LOOK + 1, LABELS_PER_LOOK):
        wrong = int(errors[first : first + LABELS_PER_LOOK].sum())
        state, change = look(state.counted(LABELS_PER_LOOK, wrong), angle, watched=100)
        if change is AlarmChange.RAISED:
            return first + LABELS_PER_LOOK
    return None


def _one_fleet(rng: Generator, telling: str, labels: int) -> tuple[float, dict[str, Estimate]]:
    """Return the accuracy of all answers, and what a few labels of them say of it."""
    held_out, held_right = _answers(rng, telling, HELD_OUT)
    confidence = numeric_reference(OUTPUT_CONFIDENCE, held_out, edges=CONFIDENCE_EDGES)
    calibration = calibration_of(
        ReferenceProfile(
            (
                FeatureReference(
                    OUTPUT_CONFIDENCE,
                    confidence.cells,
                    confidence.edges,
                    correct=tuple(count(confidence, held_out[held_right]).cells),
                ),
            )
        )
    )
    assert calibration is not None
    current, right = _answers(rng, telling, ANSWERS)
    chosen = rng.choice(ANSWERS, labels, replace=False)
    all_cells, labelled, correct = (
        folded(count(confidence, some).cells)
        for some in (current, current[chosen], current[chosen][right[chosen]])
    )
    powered = prediction_powered(calibration, all_cells, labelled, correct)
    assert powered is not None
    number = int(right[chosen].sum())
    one = (number + 0.5) / (labels + 1.0)
    return float(right.mean()), {
        "labels alone": estimated(number / labels, one, one * (1.0 - one) / labels),
        "labels alone, at every look": Estimate(
            number / labels, *proportion_interval(number, labels, MISSED_RATE)
        ),
        "with confidences": powered.estimate,
    }


def _answers(rng: Generator, telling: str, number: int) -> tuple[Floats, NDArray[np.bool_]]:
    confidences = 0.2 + 0.8 * rng.beta(1.2, 0.4, number)
    power = TELLING[telling]
    chances = (confidences - 0.2) ** power / 0.8**power if power else np.full(number, 0.8)
    return confidences, rng.random(number) < chances
