"""Bets on a numeric feature as a whole: that its values move, spread out, draw together, or stray.

A split sees one share at a time (`fleet.drift.evidence`). A sensor that is off shifts all shares a little,
and of that the cells tell more together. An alternative is a distribution Q over the cells: that of the
reference, moved or scaled as if it were normal, or with some values beyond the edges on one side. With F the
reference's share below an edge,

    moved     F_Q = Phi(Phi^-1(F) - d)
    scaled    F_Q = Phi(Phi^-1(F) / s)
    strayed   F_Q = (1 - t) F  or  (1 - t) F + t

and it takes no values, only shares. Weights are greatest for moves that are hardly more than is normal: what
is larger makes up for a small weight within a few values.

What is normal are all distributions P whose shares below the edges are in the band of `fleet.drift.splits`: a
convex set. The best e-value against Q is the likelihood ratio to that P* of them which is nearest to Q by its
Kullback-Leibler divergence (Grünwald, de Heide and Koolen 2024, "Safe testing", theorem 1): the product over
the values of

    w(cell) = Q(cell) / P*(cell)

**The taut string.** Drawn over the shares of Q, those of P* are the shortest way through the band: a string
that is pulled tight in a tube (Davies and Kovac 2001, "Local extremes, runs, strings and multiresolution",
section 2). In each cell w is one over its slope, and 1 everywhere if Q itself is normal.

**Validity** does not rest on how tight the string is, only on the mean of w being at most 1 for every P of
the band. Summed by parts that mean is

    w(last cell) + sum over the edges of F_P (w(cell before) - w(cell behind))

and greatest where F_P is at the upper end of the band wherever w falls, and at the lower where it rises.
Every w is divided by that greatest mean; for a tight string it is 1 already.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from fleet.drift.profile import FeatureReference
from fleet.drift.splits import Band, Floats, band

MOVES = {0.3: 0.22, -0.3: 0.22, 0.6: 0.07, -0.6: 0.07, 0.9: 0.02, -0.9: 0.02}
"""By how many standard deviations, and with which weights."""
SCALES = {1.5: 0.04, 0.65: 0.04}
"""By which factors, and with which weights."""
STRAYED, WEIGHT_OF_STRAYED = 0.05, 0.02
"""Which share of the values, and with which weight on each side."""
WEIGHT_OF_SHAPES = sum(MOVES.values()) + sum(SCALES.values()) + 2.0 * WEIGHT_OF_STRAYED

_ANYWHERE = 1e-6
"""Share of the values that an alternative allows to be in any cell, so that no value speaks for certain."""
_MAX_BETS = 512


class ShapeBets(NamedTuple):
    """Logarithms of ratios for each value in a cell, shape (bets, cells); and of weights, shape (bets,)."""

    ratios: Floats
    log_weights: Floats


@lru_cache(maxsize=_MAX_BETS)
def shape_bets(reference: FeatureReference, features: int) -> ShapeBets:
    """Return the bets on a numeric feature; their weights add up to `WEIGHT_OF_SHAPES`.

    Args:
        reference: The feature's.
        features: How many features its profile has.
    """
    normal, standard = band(reference, features), NormalDist()
    cells = np.asarray(reference.cells) + 0.5
    shares = np.cumsum(cells)[:-1] / cells.sum()
    places = [standard.inv_cdf(share) for share in shares]
    moved = [np.array([standard.cdf(place - by) for place in places]) for by in MOVES]
    scaled = [np.array([standard.cdf(place / by) for place in places]) for by in SCALES]
    strayed = [(1.0 - STRAYED) * shares, (1.0 - STRAYED) * shares + STRAYED]
    ratios = [_ratios(below, normal) for below in (*moved, *scaled, *strayed)]
    weights = [*MOVES.values(), *SCALES.values(), *[WEIGHT_OF_STRAYED] * 2]
    return ShapeBets(np.log(ratios), np.log(weights))


def _ratios(below: Floats, normal: Band) -> Floats:
    """Return w for each cell.

    Args:
        below: Shares of the alternative below the edges, shape (edges,).
        normal: The band; its last entry is that of the missing values.
    """
    shares = (1.0 - _ANYWHERE) * np.diff(below, prepend=0.0, append=1.0) + _ANYWHERE / (len(below) + 1)
    low, high = np.sin(normal.low[:-1]) ** 2, np.sin(normal.high[:-1]) ** 2
    ratios = 1.0 / np.maximum(_taut_slopes(np.cumsum(shares)[:-1], low, high), _ANYWHERE)
    falls = -np.diff(ratios)
    greatest_mean = ratios[-1] + np.maximum(low * falls, high * falls).sum()
    scaled: Floats = ratios / max(1.0, greatest_mean)
    return scaled


def _taut_slopes(at: Floats, low: Floats, high: Floats) -> Floats:
    """Return the slopes of the shortest way from (0, 0) to (1, 1) that is between low and high at all points.

    Args:
        at: Where the points are, ascending between 0 and 1, shape (points,).
        low: Lower ends there.
        high: Upper ends there.

    Returns:
        Between the points, shape (points + 1,).
    """
    xs, lows, highs = ([first, *inner, 1.0] for first, inner in ((0.0, at), (0.0, low), (0.0, high)))
    slopes = np.empty(len(xs) - 1)
    start, height = 0, 0.0
    while start < len(slopes):
        end, slope = _first_bend(xs, lows, highs, start, height)
        slopes[start:end] = slope
        height += slope * (xs[end] - xs[start])
        start = end
    return slopes


def _first_bend(
    xs: list[float], lows: list[float], highs: list[float], start: int, height: float
) -> tuple[int, float]:
    """Return where the string bends next, and its slope until there: as far as one sees through the tube."""
    least, greatest, under, over = -math.inf, math.inf, start, start
    for point in range(start + 1, len(xs)):
        width = xs[point] - xs[start]
        to_low, to_high = (lows[point] - height) / width, (highs[point] - height) / width
        if to_low > greatest:
            return over, greatest
        if to_high < least:
            return under, least
        if to_low >= least:
            least, under = to_low, point
        if to_high <= greatest:
            greatest, over = to_high, point
    return len(xs) - 1, least
