"""Splits: every way of parting a feature's values in two that alarms look at, and what is normal for each.

=========================  ===================================================  ===========================
feature                    parts                                                of
=========================  ===================================================  ===========================
numeric                    values below each edge, from the first to the last   values that are present
categorical                values of each category, the unseen ones included    values that are present
any                        missing values                                       all values
=========================  ===================================================  ===========================

A shift of the mean or the scale, a heavier tail, values beyond the edges, a category that comes up, a
sensor that falls silent: each shows as a share of some split that is not what it was.

**Angles.** Shares are compared as angles, arcsin(sqrt(share)), where one step means about the same
anywhere between 0 and 1: the standard error of an angle is 1 / (2 sqrt(n)), whatever the share. Cohen's
effect size h is twice the step (Cohen 1988, chapter 6). Angles of counts are Anscombe's (1948), arcsin
sqrt((k + 3/8) / (n + 3/4)).

**The band.** What the current share may be without drift is an interval of angles around the reference's:

    angle of the reference  +/-  ( allowance / (2 sqrt(n_ref))  +  MATERIAL )

The first part is for the reference being a sample: with the allowance of `fleet.drift.allowance` all
splits hold at once. The second is materiality: what is less is of no consequence, however certain.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.drift.profile import FeatureCounts, FeatureReference

MATERIAL = 0.05
"""Cohen's h of 0.1, half of "small": 50 % against 45 or 55 %, 5 % against 7.4 %, 0 against 0.25 %."""
REFERENCE_RATE = 0.01
"""How probable it may be that the reference of some feature is further from the truth than is allowed."""

_MAX_BANDS = 512
Floats = NDArray[np.float64]


class Splits(NamedTuple):
    """The splits of one side: ``part`` of ``of`` values, shape (splits,); the last one is the missing."""

    part: Floats
    of: Floats

    @property
    def angles(self) -> Floats:
        """The shares as angles."""
        angles: Floats = np.arcsin(np.sqrt((self.part + 0.375) / (self.of + 0.75)))
        return angles


class Band(NamedTuple):
    """Between which angles a share is normal, shape (splits,)."""

    low: Floats
    high: Floats


def splits(side: FeatureReference | FeatureCounts, *, numeric: bool) -> Splits:
    """Return the splits of a reference or of counts.

    Args:
        side: What is split.
        numeric: Whether cells are in order, as those of a numeric feature.
    """
    return splits_of(np.asarray(side.cells), np.asarray(side.missing), numeric=numeric)


def splits_of(cells: NDArray[np.integer], missing: NDArray[np.integer], *, numeric: bool) -> Splits:
    """Return the splits of many sides at once, shape (…, splits).

    Args:
        cells: Counts, shape (…, cells).
        missing: Shape (…).
        numeric: As of `splits`.
    """
    present, last = cells.sum(axis=-1, keepdims=True), missing[..., None]
    part = cells.cumsum(axis=-1)[..., :-1] if numeric else cells
    of = np.broadcast_to(present, part.shape)
    return Splits(
        np.concatenate([part, last], axis=-1).astype(np.float64),
        np.concatenate([of, present + last], axis=-1).astype(np.float64),
    )


def name_of(reference: FeatureReference, number: int) -> str:
    """Return what values a split parts off, for people.

    Args:
        reference: Of the feature.
        number: Of the split, from 0.
    """
    edges = reference.edges
    if number == (len(reference.cells) if edges is None else len(edges)):
        return "missing"
    if edges is not None:
        return f"below {edges[number]:.4g}"
    return "unseen" if number == len(reference.cells) - 1 else f"of category {number}"


@lru_cache(maxsize=_MAX_BANDS)
def band(reference: FeatureReference, features: int) -> Band:
    """Return the band of a reference.

    Args:
        reference: Of one feature.
        features: How many features its profile has: the allowance of one that was not calibrated is for all.
    """
    sides = splits(reference, numeric=reference.edges is not None)
    allowance = reference.allowance
    if allowance is None:
        allowance = math.sqrt(2.0 * math.log(2.0 * len(sides.part) * features / REFERENCE_RATE))
    width = allowance / (2.0 * np.sqrt(np.maximum(1.0, sides.of))) + MATERIAL
    return Band(np.maximum(0.0, sides.angles - width), np.minimum(math.pi / 2.0, sides.angles + width))
