"""Evidence that counts are not of what the reference was drawn from, as an e-value.

An e-value is a number that without drift is 1 on average, or less, whatever the number of values: by
Markov's inequality it exceeds x with probability 1 / x at most (Vovk and Wang 2021; Ramdas, Grünwald, Vovk
and Shafer 2023, "Game-theoretic statistics and safe anytime-valid inference"). E-values of successive
looks may be multiplied, and of different splits averaged, however they depend on one another.

For one split (`fleet.drift.splits`) with k of n values in the part, and h the highest share that is
normal, the likelihood ratio of a larger share s

    L = (s / h)^k ((1 - s) / (1 - h))^(n - k)

is an e-value for every share up to h: on average it is (1 + (p - h)(s - h) / (h (1 - h)))^n for the share
p, which is at most 1 for p <= h < s. Likewise below the lowest share that is normal. The evidence of a
look is the mean over all splits, both directions, and effects of several sizes, because nobody knows
beforehand which drift will come; and, of a numeric feature, over bets on its shape as a whole, which have
most of the weight (`fleet.drift.shapes`). The split of the missing values has an eighth of it to itself.

Evidence is stated as its decimal logarithm: 3 is a thousand to one for drift, -1 ten to one against it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fleet.drift.profile import FeatureCounts, FeatureReference
from fleet.drift.shapes import WEIGHT_OF_SHAPES, shape_bets
from fleet.drift.splits import Floats, band, name_of, splits

EFFECTS = (0.05, 0.15, 0.45)
"""How far beyond the band, in angles, drift is looked for."""
WEIGHT_OF_MISSING = 1.0 / 8.0
_MAX_BETS = 512


class Finding(NamedTuple):
    """What the counts of one look say.

    Attributes:
        evidence: For drift, see the head of this file.
        split: The split that says most.
        share: Of the values in its part,
        expected: and what it was in the reference.
    """

    evidence: float
    split: str
    share: float
    expected: float


class _Bets(NamedTuple):
    """Logarithms of likelihood ratios: for each value in the part, and for each beside it; and of weights.

    All of shape (bets, splits); a bet for which there is no room has weight 0.
    """

    inside: Floats
    outside: Floats
    log_weight: Floats


def find(reference: FeatureReference, counts: FeatureCounts, features: int) -> Finding:
    """Return what the counts of one look say about drift.

    Args:
        reference: The feature's.
        counts: In its layout.
        features: How many features its profile has.
    """
    current = splits(counts, numeric=reference.edges is not None)
    bets = _bets(reference, features)
    with np.errstate(invalid="ignore"):  # a bet without room is infinite, and has weight 0
        ratios = current.part * bets.inside + (current.of - current.part) * bets.outside
    ratios = np.where(bets.log_weight > -np.inf, ratios + bets.log_weight, -np.inf)
    most = float(ratios.max())
    if most == -math.inf:  # with so small a reference anything is normal
        return Finding(0.0, "", 0.0, 0.0)
    best = int(ratios.max(axis=0).argmax())
    every = ratios.ravel()
    if reference.edges is not None:
        shapes = shape_bets(reference, features)
        every = np.concatenate([every, shapes.ratios @ np.asarray(counts.cells) + shapes.log_weights])
        most = float(every.max())
    normal = splits(reference, numeric=reference.edges is not None)
    return Finding(
        evidence=(most + math.log(float(np.exp(every - most).sum()))) / math.log(10.0),
        split=name_of(reference, best),
        share=float(current.part[best] / max(1.0, current.of[best])),
        expected=float(normal.part[best] / max(1.0, normal.of[best])),
    )


@lru_cache(maxsize=_MAX_BETS)
def _bets(reference: FeatureReference, features: int) -> _Bets:
    normal = band(reference, features)
    up, down = _directed(normal.high), _directed(math.pi / 2.0 - normal.low)
    inside = np.concatenate([up.inside, down.outside])
    weight = np.exp(np.concatenate([up.log_weight, down.log_weight]))
    weight_of_shapes = 0.0 if reference.edges is None else WEIGHT_OF_SHAPES
    weight[:, :-1] *= (1.0 - WEIGHT_OF_MISSING - weight_of_shapes) / max(1e-300, weight[:, :-1].sum())
    weight[:, -1] *= WEIGHT_OF_MISSING / max(1e-300, weight[:, -1].sum())
    with np.errstate(divide="ignore"):
        return _Bets(inside, np.concatenate([up.outside, down.inside]), np.log(weight))


def _directed(highest: Floats) -> _Bets:
    """Return bets on larger angles than the highest normal ones, with equal weights."""
    room = math.pi / 2.0 - highest
    angles = highest + np.minimum(np.array(EFFECTS)[:, None], room / 2.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = 2.0 * (np.log(np.sin(angles)) - np.log(np.sin(highest)))
        outside = 2.0 * (np.log(np.cos(angles)) - np.log(np.cos(highest)))
        log_weight = np.log(np.broadcast_to(room > 1e-6, angles.shape).astype(np.float64))
    return _Bets(inside, outside, log_weight)
