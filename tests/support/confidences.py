"""A simulated classifier whose answers are right with a chance that depends on their confidence alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.drift.features import CONFIDENCE_EDGES, OUTPUT_CONFIDENCE
from fleet.drift.profile import FeatureReference, ReferenceProfile, count, numeric_reference
from fleet.protocol.labels import Labels
from fleet.protocol.records import TelemetryWindow
from fleet.quality.calibration import labelled_cells

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Answers(NamedTuple):
    """Confidences, and whether each answer is right; shape (N,)."""

    confidences: Floats
    right: Bools

    def some(self, chosen: NDArray[np.intp]) -> Answers:
        """Return some of them."""
        return Answers(self.confidences[chosen], self.right[chosen])


def chance_of(confidences: Floats, overconfidence: float = 1.3) -> Floats:
    """Return how often answers are right; with 1 nearly as often as they say."""
    chances: Floats = 0.1 + 0.9 * confidences**overconfidence
    return chances


def answers_of(
    rng: np.random.Generator, number: int, *, sure: float = 8.0, unsure: float = 1.0, wrong: float = 0.0
) -> Answers:
    """Return answers.

    Args:
        rng: Draws them.
        number: How many.
        sure: The larger, the surer they are.
        unsure: The larger, the less.
        wrong: Share of the right ones that are wrong all the same: what concept drift does.
    """
    confidences = 0.2 + 0.8 * rng.beta(sure, unsure, number)
    right = (rng.random(number) < chance_of(confidences)) & (rng.random(number) >= wrong)
    return Answers(confidences, right)


def reference_of(held_out: Answers) -> ReferenceProfile:
    """Return the reference profile of a version with these held-out answers."""
    confidence = numeric_reference(OUTPUT_CONFIDENCE, held_out.confidences, edges=CONFIDENCE_EDGES)
    right = count(confidence, held_out.confidences[held_out.right])
    known = FeatureReference(
        name=OUTPUT_CONFIDENCE,
        cells=confidence.cells,
        edges=confidence.edges,
        offsets=confidence.offsets,
        deviation=confidence.deviation,
        correct=tuple(right.cells),
    )
    return ReferenceProfile((known,))


def window_of(reference: ReferenceProfile, answers: Answers, labelled: Answers) -> TelemetryWindow:
    """Return the window of answers, some of which are labelled."""
    cells = labelled_cells(reference, labelled.right.tolist(), labelled.confidences.tolist())
    return TelemetryWindow(
        started_at_s=1000.0,
        ended_at_s=1060.0,
        model="digits",
        version=1,
        manifest_sha256="a" * 64,
        variant="onnx-int8",
        predictions=len(answers.right),
        labelled=len(labelled.right),
        correct=int(labelled.right.sum()),
        profile={OUTPUT_CONFIDENCE: count(reference.features[0], answers.confidences)},
        labels=Labels(cells),
    )
