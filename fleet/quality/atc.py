"""Average thresholded confidence: a second opinion on the accuracy of answers without any label.

A threshold on the confidence is chosen so that the share of the held-out answers above it is their accuracy;
the share of current answers above it is the estimate (Garg, Balakrishnan, Lipton, Neyshabur and Sedghi 2022,
"Leveraging unlabeled data to predict out-of-distribution performance"). It needs no calibrated
probabilities, only that sure answers are right more often.

Of answers only counts by bin are known, and how far into their bin they are on average. Within a bin they are
taken to be spread evenly over the widest part of it that begins or ends with the bin and has that mean in its
middle, as in `fleet.drift.transport`.

It has no interval. What it is off by is hardly chance: where confidences fall although the model is
calibrated, the share above the threshold falls by something else than the accuracy. On simulated shifts,
intervals for chance alone left the truth out nearly always; those of `fleet.quality.cbpe` held it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fleet.drift.cells import OFFSET_UNITS
from fleet.drift.profile import FeatureCounts, FeatureReference
from fleet.quality.calibration import Calibration, Floats, folded


class _Spread(NamedTuple):
    """Answers by bin, and over which part of the bin they are spread; all of shape (B,)."""

    answers: Floats
    start: Floats
    end: Floats

    def above(self, place: int, at: float) -> float:
        """Return the share of answers above a threshold: ``at`` is where it is in its bin, 0 to 1."""
        width = self.end[place] - self.start[place]
        of_bin = float(np.clip((self.end[place] - at) / width, 0.0, 1.0))
        over = self.answers[place + 1 :].sum() + of_bin * self.answers[place]
        return float(over / self.answers.sum())


def atc(calibration: Calibration, reference: FeatureReference, counts: FeatureCounts) -> float:
    """Return the estimated accuracy of answers.

    Args:
        calibration: Of the version that gave them.
        reference: Its confidence.
        counts: Of the confidence of the answers, in that layout; at least one in all.
    """
    held_out, current = (_spread(side.cells, side.offsets) for side in (reference, counts))
    place, at = _threshold(held_out, calibration.accuracy)
    return current.above(place, at)


def _spread(cells: Sequence[int], offsets: Sequence[int]) -> _Spread:
    answers = folded(cells)
    inside = np.asarray(cells, dtype=np.float64)[1:-1]
    into = np.asarray(offsets if len(offsets) == len(cells) else [0] * len(cells), dtype=np.float64)[1:-1]
    known = (inside > 0.0) & (len(offsets) == len(cells))
    middle = np.divide(into, inside, out=np.full_like(inside, OFFSET_UNITS / 2.0 - 0.5), where=known) + 0.5
    middle = np.clip(middle / OFFSET_UNITS, 0.5 / OFFSET_UNITS, 1.0 - 0.5 / OFFSET_UNITS)
    return _Spread(answers, np.maximum(0.0, 2.0 * middle - 1.0), np.minimum(1.0, 2.0 * middle))


def _threshold(held_out: _Spread, accuracy: float) -> tuple[int, float]:
    """Return the bin of the threshold, and where in the bin it is, 0 to 1."""
    wanted = accuracy * held_out.answers.sum()
    over = 0.0
    for place in range(len(held_out.answers) - 1, -1, -1):
        there = float(held_out.answers[place])
        if there and over + there >= wanted:
            start, end = held_out.start[place], held_out.end[place]
            return place, float(end - (wanted - over) / there * (end - start))
        over += there
    return 0, 0.0
