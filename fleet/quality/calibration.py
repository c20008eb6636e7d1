"""Calibration: how often an answer of a certain confidence is right, measured when the model is built.

The held-out samples are answered, and of each cell of the confidence (`fleet.drift.features`) the manifest
says how many answers there were, and how many of those were right (`FeatureReference.correct`). From these
counts follows the map from confidence to the chance of being right, and how well it is known:

1. Cells are put in order, and neighbours in which surer answers are right less often are pooled, until the
   share of right answers rises with the confidence (pool adjacent violators: Ayer, Brunk, Ewing, Reid and
   Silverman 1955; for calibration Zadrozny and Elkan 2002). What is pooled is called a *level*.
2. A cell that no held-out answer fell into is on a level of its own, between its neighbours' by how far it is
   from each of them.
3. With k of n right, the chance of a level is k / n, and its variance that of the posterior of Jeffreys'
   prior, Beta(k + 1/2, n - k + 1/2) (Brown, Cai and DasGupta 2001). A level without answers has n = 0.

Rounding takes a probability out of 0 to 1 at times: what is in the cells below and above counts in the first
and last bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.drift.cells import cell_of, layout_of
from fleet.drift.features import OUTPUT_CONFIDENCE
from fleet.drift.profile import FeatureCounts, FeatureReference, ReferenceProfile, count
from fleet.protocol.labels import LabelledCells

Floats = NDArray[np.float64]


class Calibration(NamedTuple):
    """The map, for each of B bins of the confidence.

    Attributes:
        answers: Held-out answers, shape (B,).
        correct: How many of them were right, shape (B,).
        chance: Of being right, shape (B,); it does not fall.
        level: Number of the level that the bin is on, shape (B,).
        level_mean: Mean of the posterior of each level, shape (L,).
        level_variance: Its variance, shape (L,).
    """

    answers: Floats
    correct: Floats
    chance: Floats
    level: NDArray[np.intp]
    level_mean: Floats
    level_variance: Floats

    @property
    def samples(self) -> int:
        """How many held-out answers there were."""
        return int(self.answers.sum())

    @property
    def accuracy(self) -> float:
        """Share of the held-out answers that were right."""
        return float(self.correct.sum() / self.answers.sum())


def confidence_of(reference: ReferenceProfile) -> FeatureReference | None:
    """Return the confidence in a reference profile; None of a model that has none."""
    return next(
        (each for each in reference.features if each.name == OUTPUT_CONFIDENCE and each.edges is not None),
        None,
    )


def with_correct(
    reference: ReferenceProfile, outputs: NDArray[np.floating], labels: NDArray[np.integer]
) -> ReferenceProfile:
    """Return a new version's reference profile with what calibration needs, if the model has a confidence.

    Args:
        reference: Of the same answers, from `fleet.drift.features.build_reference`.
        outputs: The model's answers to held-out samples, shape (N, C).
        labels: Number of each sample's class, shape (N,).
    """
    confidence = confidence_of(reference)
    if confidence is None:
        return reference
    rows = np.asarray(outputs, dtype=np.float64).reshape(len(outputs), -1)
    right = count(confidence, rows.max(axis=1)[rows.argmax(axis=1) == labels])
    known = msgspec.structs.replace(confidence, correct=tuple(right.cells))
    return ReferenceProfile(tuple(known if each is confidence else each for each in reference.features))


def calibration_of(reference: ReferenceProfile) -> Calibration | None:
    """Return the map of a version; None if its model has no confidence or was built without labels."""
    confidence = confidence_of(reference)
    if confidence is None or not any(confidence.cells) or len(confidence.correct) != len(confidence.cells):
        return None
    answers, correct = folded(confidence.cells), folded(confidence.correct)
    chance, level = _levels(answers, correct)
    n, k = (np.bincount(level, weights=counts) for counts in (answers, correct))
    above, below = k + 0.5, n - k + 0.5
    return Calibration(
        answers=answers,
        correct=correct,
        chance=chance,
        level=level,
        level_mean=above / (n + 1.0),
        level_variance=above * below / (np.square(n + 1.0) * (n + 2.0)),
    )


def folded(cells: Sequence[int]) -> Floats:
    """Return the counts of the bins, shape (B,), with what is below and above in the first and the last."""
    counts = np.asarray(cells, dtype=np.float64)
    bins = counts[1:-1].copy()
    bins[0] += counts[0]
    bins[-1] += counts[-1]
    return bins


def folded_labels(labelled: LabelledCells, bins: int) -> tuple[Floats, Floats]:
    """Return how many answers of each bin were labelled, and how many of those right, both of shape (B,).

    Args:
        labelled: By the number of the cell; cells that there are not are left out.
        bins: B.
    """
    labels, right = np.zeros(bins), np.zeros(bins)
    for cell, (number, correct) in labelled.items():
        if cell <= bins + 1:
            place = min(max(cell - 1, 0), bins - 1)
            labels[place] += number
            right[place] += correct
    return labels, right


def labelled_cells(
    reference: ReferenceProfile, are_correct: Sequence[bool], confidences: Sequence[float]
) -> LabelledCells:
    """Return labels by the confidence of their answers; nothing for a model that has no confidence.

    Args:
        reference: Of the version that answered.
        are_correct: Whether each labelled answer was right.
        confidences: The greatest number of each.
    """
    confidence = confidence_of(reference)
    if confidence is None or confidence.edges is None:
        return {}
    numbers = cell_of(np.asarray(confidences, dtype=np.float64), layout_of(confidence.edges)).tolist()
    cells: LabelledCells = {}
    for cell, is_correct in zip(numbers, are_correct, strict=True):
        labels, right = cells.get(cell, (0, 0))
        cells[cell] = (labels + 1, right + is_correct)
    return cells


def counted_confidence(profile: dict[str, FeatureCounts], bins: int) -> FeatureCounts | None:
    """Return the counts of the confidence in a profile; None if they are not there, or of nothing."""
    counts = profile.get(OUTPUT_CONFIDENCE)
    return counts if counts is not None and len(counts.cells) == bins + 2 and counts.total else None


def _levels(answers: Floats, correct: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Return the chance of being right and the number of the level, for each bin."""
    pools: list[tuple[float, float, list[int]]] = []  # answers, right ones, bins
    for place in np.flatnonzero(answers).tolist():
        pools.append((answers[place], correct[place], [place]))
        while len(pools) > 1 and pools[-2][1] * pools[-1][0] >= pools[-1][1] * pools[-2][0]:
            (n, k, bins), (m, j, more) = pools[-2:]
            pools[-2:] = [(n + m, k + j, [*bins, *more])]
    seen = [place for _, _, bins in pools for place in bins]
    shares = [k / n for n, k, bins in pools for _ in bins]
    chance = np.interp(np.arange(len(answers)), seen, shares)
    level = np.full(len(answers), -1)
    for number, (_, _, bins) in enumerate(pools):
        level[bins] = number
    unseen = np.flatnonzero(level < 0)
    level[unseen] = len(pools) + np.arange(len(unseen))
    return chance, level
