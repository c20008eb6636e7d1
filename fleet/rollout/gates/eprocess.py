"""E-processes for two shares: evidence that may be looked at as often as one likes.

An e-process is a number that starts at 1 and, while its null hypothesis holds, is at most 1 on average
whenever one stops to look. By Ville's inequality it ever reaches 1 / alpha with probability alpha at most
(Ramdas, Grünwald, Vovk and Shafer 2023, "Game-theoretic statistics and safe anytime-valid inference").

**One arm.** With k bad of n, p = sin²(t) and s = sin²(t + o), the likelihood ratio

    L = (s / p)^k ((1 - s) / (1 - p))^(n - k)

is an e-process for every share up to p if o > 0, for every share from p on if o < 0: a bet on more, or on
fewer. It stays one for samples between 0 and 1 of which only the means are bounded (Hoeffding 1963;
Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting"), and for samples
whose shares differ if p bounds their mean share. Nobody knows the effect beforehand, so a person bets on
all of `EFFECTS` with equal stakes and keeps `KEPT` of the money out of the bets (the method of mixtures;
Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon 2021). The angle is used because all shares are equally
hard to tell apart in it.

**Two arms.** Let a be the canaries' share, b the controls', m the margin. The null hypotheses are

    harm    a <= b + m    the canaries are no worse: rejecting it is evidence of harm
    safety  a >= b + m    they are worse: rejecting it is evidence of safety

If b were known, a bet of the canaries against b + m would do. It is not; but for the true b, whatever it
is, that bet times a bet of the controls on the other side of b is an e-process, so the least of these
products over all b is one as well (the argument of universal inference: Wasserman, Ramdas and Balakrishnan
2020; see also Turner, Ly and Grünwald 2024, "Generic e-variables for exact sequential k-sample tests").
Both arms' evidence multiplies where a union of two intervals would let only one of them speak, and since
each keeps money out, a large control costs next to nothing.

**Quantiles.** Let Q_a, Q_b be the q-quantiles of the arms and r a ratio. If t = Q_b, a null hypothesis says
on which side of 1 - q the canaries' share above r t is, and 1 - q is the controls' share above t: the same
product, and its least over all t (Howard and Ramdas 2022, "Sequential estimation of quantiles"; Lindon,
Sanden and Shirikian 2022, "Rapid regression detection in software deployments through sequential testing").

The least is sought on grids that are drawn closer `_LEVELS` times. Samples may come in any order and
interleaving; within an arm they are taken as independent, for which see `fleet.rollout.gates.dispersion`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.latency import BUCKETS_PER_OCTAVE, LAST_BUCKET

Floats = NDArray[np.float64]

EFFECTS = tuple(0.0075 * 2.0**i for i in range(7))
"""Sizes of effects that are bet on, in angles: near a share of 10 %, 0.5 points to 36."""
KEPT = 0.25
"""Share of the money that is in no bet."""
LARGEST_LOG = 700.0
"""Evidence is not told beyond its exponential."""

_STEPS = np.linspace(0.0, 1.0, 13)
_LEVELS = 5
_LEAST_ANGLE = 1e-9
_RIGHT_ANGLE = math.pi / 2.0
_EFFECTS = np.array(EFFECTS)[:, None, None, None]
_SINES, _COSINES = np.sin(_EFFECTS), np.cos(_EFFECTS)
_SUBEDGES = 4
"""A quantile is sought on so many edges in each latency bucket."""
_IS_ON_MORE = np.array([True, False])[:, None, None]
_AT_ONCE = 4096
"""So many pairs of bets are worked out at once, so that they fit into the processor's cache."""


class Counts(NamedTuple):
    """Effective counts of one arm; need not be whole.

    Attributes:
        bad: How many samples were bad.
        total: How many there were.
    """

    bad: float
    total: float


class Evidences(NamedTuple):
    """Natural logarithms of a pair of e-values.

    Attributes:
        harm: For the canaries being worse by more than the margin.
        safety: For their not being so.
    """

    harm: float
    safety: float


NOTHING = Evidences(0.0, 0.0)
Arms = Sequence[Counts] | Floats
"""Several arms; as an array, its last axis is ``bad`` and ``total``."""


def against_limit(arms: Arms, limit: float) -> list[Evidences]:
    """Return the evidence on each arm's share against a limit, 0 to 1."""
    bad, good = _bad_and_good(arms)
    return _evidences(_log_bets(bad, good, np.array([math.asin(math.sqrt(limit))])))


def against_control(canary: Arms, control: Arms, margin: float) -> list[Evidences]:
    """Return the evidence on each pair of arms, with one margin, 0 to 1, for all of them."""
    one, other = _bad_and_good(canary), _bad_and_good(control)
    blocks = _blocks(one.shape[1], len(_STEPS))
    return [
        found
        for some in blocks
        for found in _evidences(_near_the_least(one[:, some], other[:, some], margin))
    ]


def of_quantiles(canary: Floats, control: Floats, quantile: float, ratio: float) -> list[Evidences]:
    """Return the evidence on whether the canaries' latency quantile exceeds ``ratio`` times the controls'.

    Within a bucket durations are taken as spread evenly in their logarithms.

    Args:
        canary: Effective counts, a row of latency buckets for each pair (`fleet.protocol.latency`); buckets
            that are left out at the end are empty.
        control: Likewise.
        quantile: Between 0 and 1.
        ratio: Above 1.
    """
    edges = np.arange((LAST_BUCKET + 1) * _SUBEDGES + 1) / _SUBEDGES
    shifted = edges + BUCKETS_PER_OCTAVE * math.log2(ratio)
    angle = np.array([math.asin(math.sqrt(1.0 - quantile))])

    def log_products(some: slice) -> Floats:
        above, below = _above_and_below(canary[some], shifted)
        control_above, control_below = _above_and_below(control[some], edges)
        bets = _log_bets(above, below, angle)
        return bets + _log_bets(control_below, control_above, _RIGHT_ANGLE - angle)

    return [one for some in _blocks(len(canary), len(edges)) for one in _evidences(log_products(some))]


def mean(evidences: list[float]) -> float:
    """Return the logarithm of the mean of e-values, given and returned as logarithms.

    The mean of e-values is one, however they depend on one another (Vovk and Wang 2021).
    """
    most = max(evidences)
    return most + math.log(sum(math.exp(one - most) for one in evidences) / len(evidences))


def e_value(log_e: float) -> float:
    """Return the e-value itself, at most about 10^304."""
    return math.exp(min(LARGEST_LOG, log_e))


def _near_the_least(canary: Floats, control: Floats, margin: float) -> Floats:
    """Return log products of both arms' bets for shares of the controls, among them the least, along axis 2.

    Args:
        canary: From `_bad_and_good`.
        control: Likewise.
        margin: See `against_control`.
    """

    def log_products(angles: Floats) -> Floats:
        shifted = np.arcsin(np.sqrt(np.minimum(1.0, np.sin(angles) ** 2 + margin)))
        bets = _log_bets(canary[0], canary[1], shifted)
        return bets + _log_bets(control[1], control[0], _RIGHT_ANGLE - angles)

    angles = math.asin(math.sqrt(1.0 - margin)) * _STEPS[None, None]
    values = log_products(angles)
    for _ in range(1, _LEVELS):
        least = values.argmin(axis=2)[..., None]
        angles = np.broadcast_to(angles, values.shape)
        low = np.take_along_axis(angles, np.maximum(0, least - 1), axis=2)
        high = np.take_along_axis(angles, np.minimum(len(_STEPS) - 1, least + 1), axis=2)
        angles = low + (high - low) * _STEPS
        values = log_products(angles)
    return values


def _log_bets(bad: Floats, good: Floats, angle: Floats) -> Floats:
    """Return the log of each arm's e-processes against the share of an angle: the bets on more, and on fewer.

    A bet on fewer that are bad is one on more that are good, so with these changed places, and the angle
    taken from a right one, the two bets change places.

    Args:
        bad: How many were, by arm and angle.
        good: Likewise.
        angle: By bet, arm and angle; as all, broadcast.

    Returns:
        By bet, arm and angle.
    """
    start = np.where(_IS_ON_MORE, angle, _RIGHT_ANGLE - angle)
    start = np.minimum(np.maximum(start, _LEAST_ANGLE), _RIGHT_ANGLE - _LEAST_ANGLE)
    room, tangent = _RIGHT_ANGLE - start, np.tan(start)
    # sin(t + o) / sin(t) and cos(t + o) / cos(t), with o at most half of the room that there is
    half = room / 2.0
    cosine, has_room = np.cos(half), half > _EFFECTS
    more = np.where(has_room, _COSINES + _SINES / tangent, cosine / np.cos(room))
    fewer = np.where(has_room, _COSINES - _SINES * tangent, 0.5 / cosine)
    ratios = 2.0 * np.array([bad, good]) * np.log(more) + 2.0 * np.array([good, bad]) * np.log(fewer)
    most = np.maximum(0.0, ratios.max(axis=0))
    won = np.exp(ratios - most).sum(axis=0) / len(EFFECTS)
    log_e: Floats = most + np.log(KEPT * np.exp(-most) + (1.0 - KEPT) * won)
    return log_e


def _above_and_below(counts: Floats, edges: Floats) -> tuple[Floats, Floats]:
    """Return how many durations of each row are above each edge, and how many not; edges are in buckets."""
    below = np.zeros((len(counts), LAST_BUCKET + 2))
    below[:, 1 : 1 + counts.shape[1]] = counts
    below = below.cumsum(axis=1)
    start = np.minimum(edges.astype(np.intp), LAST_BUCKET)
    part = np.minimum(1.0, edges - start)
    at_edge = below[:, start] + part * (below[:, start + 1] - below[:, start])
    return below[:, -1:] - at_edge, at_edge


def _bad_and_good(arms: Arms) -> Floats:
    """Return how many samples of each arm were bad, and how many were not; of shape (2, arms, 1)."""
    bad, total = np.asarray(arms, dtype=np.float64).reshape(-1, 2).T[..., None]
    return np.array([bad, total - bad])


def _blocks(arms: int, bets: int) -> list[slice]:
    """Return parts of many arms, with so many bets each, that are worked out at once."""
    size = max(1, _AT_ONCE // bets)
    return [slice(start, start + size) for start in range(0, arms, size)]


def _evidences(log_e: Floats) -> list[Evidences]:
    """Return the least of axis 2."""
    return [Evidences(*pair) for pair in log_e.min(axis=2).T.tolist()]
