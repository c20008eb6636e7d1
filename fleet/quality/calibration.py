"""Calibration: how often an answer of a certain confidence is right, measured when the model is built.

The held-out samples are answered, and of each cell of the confidence (`fleet.drift.features`) the manifest
says how many answers there were, and how many of those were right (`FeatureReference.correct`). From these
counts follows the map from confidence to the chance of being right, and how well it is known:

1. Bins are put in order, and neighbours in which surer answers are right less often are pooled, until the
   share of right answers rises with the confidence (pool adjacent violators: Ayer, Brunk, Ewing, Reid and
   Silverman 1955; for calibration Zadrozny and Elkan 2002).
2. The model's own word, its confidence c, counts as s answers more: with k of n right in what was pooled, the
   chance of being right is (k + s c) / (n + s), the mean of the posterior of Beta(s c, s (1 - c)). s is the
   one of `TRUST` under which the counts of all bins are most probable (beta-binomial; empirical Bayes,
   Robbins 1956): a model whose confidences are as they should be is taken at its word, others hardly. If the
   word is off as a whole, its logits are scaled and shifted first (Platt 1999), where that makes the counts
   more probable by more than its two numbers would anyway (Akaike 1974).
3. A bin without held-out answers is taken at its word, within what its neighbours allow.
4. The variance of a chance p is p (1 - p) / (n + 1), n being the answers of its bin alone: what was pooled is
   alike by assumption, and so is the model's word right; neither is given credit.

Rounding takes a probability out of 0 to 1 at times: what is in the cells below and above counts in the first
and last bin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.drift.cells import OFFSET_UNITS
from fleet.drift.features import OUTPUT_CONFIDENCE
from fleet.drift.profile import FeatureCounts, FeatureReference, ReferenceProfile, count
from fleet.protocol.labels import LabelledCells

TRUST = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""How many answers a model's own word may be worth."""
_SUREST = 1e-4
_PRICE = 2.0  # in nats, of two numbers
_MOST_STEPS, _LONGEST_STEP = 20, 2.0
Floats = NDArray[np.float64]


class Calibration(NamedTuple):
    """The map, for each of B bins of the confidence.

    Attributes:
        answers: Held-out answers, shape (B,).
        correct: How many of them were right, shape (B,).
        chance: Of being right, shape (B,).
    """

    answers: Floats
    correct: Floats
    chance: Floats

    @property
    def variance(self) -> Floats:
        """How well the chances are known, shape (B,)."""
        variance: Floats = self.chance * (1.0 - self.chance) / (self.answers + 1.0)
        return variance

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
    if confidence is None or confidence.edges is None or len(confidence.correct) != len(confidence.cells):
        return None
    answers, correct = folded(confidence.cells), folded(confidence.correct)
    if not answers.any():
        return None
    return Calibration(answers, correct, _chances(answers, correct, _word(confidence)))


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
    if confidence is None:
        return {}
    sure, right = np.asarray(confidences, dtype=np.float64), np.asarray(are_correct, dtype=np.bool_)
    labelled, correct = count(confidence, sure).cells, count(confidence, sure[right]).cells
    return {cell: (labelled[cell], correct[cell]) for cell in np.flatnonzero(labelled).tolist()}


def counted_confidence(profile: dict[str, FeatureCounts], bins: int) -> FeatureCounts | None:
    """Return the counts of the confidence in a profile; None if they are not there, or of nothing."""
    counts = profile.get(OUTPUT_CONFIDENCE)
    return counts if counts is not None and len(counts.cells) == bins + 2 and counts.total else None


def _word(confidence: FeatureReference) -> Floats:
    """Return the mean confidence of the held-out answers of each bin; of a bin without any its middle."""
    edges = np.asarray(confidence.edges)
    inside = np.asarray(confidence.cells, dtype=np.float64)[1:-1]
    units = np.full(len(inside), OFFSET_UNITS / 2.0)
    if len(confidence.offsets) == len(confidence.cells):
        into = np.asarray(confidence.offsets, dtype=np.float64)[1:-1]
        units = np.divide(into + 0.5 * inside, inside, out=units, where=inside > 0.0)
    word: Floats = edges[:-1] + units / OFFSET_UNITS * np.diff(edges)
    return np.clip(word, _SUREST, 1.0 - _SUREST)


def _chances(answers: Floats, correct: Floats, word: Floats) -> Floats:
    """Return the chance of being right of each bin, see the head of this file.

    Args:
        answers: Shape (B,); some in all.
        correct: Shape (B,).
        word: What the model says itself: the mean confidence of each bin.
    """
    pools: list[tuple[float, float, list[int]]] = []  # answers, right ones, bins
    for place in np.flatnonzero(answers).tolist():
        pools.append((answers[place], correct[place], [place]))
        while len(pools) > 1 and pools[-2][1] * pools[-1][0] >= pools[-1][1] * pools[-2][0]:
            (n, k, bins), (m, j, more) = pools[-2:]
            pools[-2:] = [(n + m, k + j, [*bins, *more])]
    word, trust = _word_and_trust(answers, correct, word)
    chance = np.full(len(answers), np.nan)
    for n, k, bins in pools:
        chance[bins] = (k + trust * word[bins]) / (n + trust)
    seen = np.flatnonzero(answers)
    for place in np.flatnonzero(answers == 0.0).tolist():
        before, after = seen[seen < place], seen[seen > place]
        lowest = chance[before[-1]] if before.size else 0.0
        highest = chance[after[0]] if after.size else 1.0
        chance[place] = max(lowest, min(highest, word[place]))
    return chance


def _word_and_trust(answers: Floats, correct: Floats, word: Floats) -> tuple[Floats, float]:
    """Return the word, corrected where that is called for, and how many answers it is worth."""
    corrected = _corrected(answers, correct, word)
    found = [
        (_log_likelihood(answers, correct, said, trust) - price, trust, said)
        for said, price in ((word, 0.0), (corrected, _PRICE))
        for trust in TRUST
    ]
    _, trust, said = max(found, key=lambda choice: choice[0])
    return said, trust


def _corrected(answers: Floats, correct: Floats, word: Floats) -> Floats:
    """Return the word with its logits scaled and shifted: the greatest posterior, by Newton's method."""
    said = np.log(word / (1.0 - word))
    features = np.stack([np.ones_like(said), said], axis=1)
    usual = np.array([0.0, 1.0])
    weights = usual
    for _ in range(_MOST_STEPS):
        chance = 1.0 / (1.0 + np.exp(-features @ weights))
        gradient = features.T @ (correct - answers * chance) - (weights - usual)
        curvature = (features * (answers * chance * (1.0 - chance))[:, None]).T @ features + np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step * min(1.0, _LONGEST_STEP / max(1e-12, float(np.abs(step).max())))
        weights[1] = max(0.0, weights[1])
    corrected: Floats = 1.0 / (1.0 + np.exp(-features @ weights))
    return np.clip(corrected, _SUREST, 1.0 - _SUREST)


def _log_likelihood(answers: Floats, correct: Floats, word: Floats, trust: float) -> float:
    """Return how probable the counts are, but for a constant, if chances are of Beta(s c, s (1 - c))."""
    total = 0.0
    for n, k, c in zip(answers.tolist(), correct.tolist(), word.tolist(), strict=True):
        right, wrong = trust * c, trust * (1.0 - c)
        total += math.lgamma(right + k) - math.lgamma(right) + math.lgamma(wrong + n - k) - math.lgamma(wrong)
        total += math.lgamma(trust) - math.lgamma(trust + n)
    return total
