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
from collections.abc import Mapping
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
_EFFECTS = np.array(EFFECTS)
_SINES, _COSINES = np.sin(_EFFECTS), np.cos(_EFFECTS)
_SUBEDGES = 4
"""A quantile is sought on so many edges in each latency bucket."""


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


def against_limit(arm: Counts, limit: float) -> Evidences:
    """Return the evidence on an arm's share against a limit, 0 to 1."""
    up = np.array([True, False])
    found = _log_bets(arm.bad, arm.total, math.asin(math.sqrt(limit)), up)
    return _evidences(found[0], found[1])


def against_control(canary: list[Counts], control: list[Counts], margin: float) -> list[Evidences]:
    """Return the evidence on each pair of arms, with one margin, 0 to 1, for all of them."""
    k, n = (np.array([getattr(arm, name) for arm in canary] * 2) for name in Counts._fields)
    control_k, control_n = (np.array([getattr(arm, name) for arm in control] * 2) for name in Counts._fields)
    harm = np.arange(2 * len(canary)) < len(canary)

    def log_product(angles: Floats) -> Floats:
        shifted = np.arcsin(np.sqrt(np.minimum(1.0, np.sin(angles) ** 2 + margin)))
        bets = _log_bets(k[:, None], n[:, None], shifted, harm[:, None])
        return bets + _log_bets(control_k[:, None], control_n[:, None], angles, ~harm[:, None])

    low = np.zeros(len(k))
    high = np.full(len(k), math.asin(math.sqrt(1.0 - margin)))
    for _ in range(_LEVELS):
        angles = low[:, None] + (high - low)[:, None] * _STEPS
        values = log_product(angles)
        least = values.argmin(axis=1)
        rows = np.arange(len(k))
        low = angles[rows, np.maximum(0, least - 1)]
        high = angles[rows, np.minimum(len(_STEPS) - 1, least + 1)]
    found = values.min(axis=1)
    return [_evidences(found[i], found[i + len(canary)]) for i in range(len(canary))]


def of_quantiles(
    canary: Mapping[int, float], control: Mapping[int, float], quantile: float, ratio: float
) -> Evidences:
    """Return the evidence on whether the canaries' latency quantile exceeds ``ratio`` times the controls'.

    Within a bucket durations are taken as spread evenly in their logarithms.

    Args:
        canary: Effective counts by latency bucket, see `fleet.protocol.latency`.
        control: Likewise.
        quantile: Between 0 and 1.
        ratio: Above 1.
    """
    edges = np.arange((LAST_BUCKET + 1) * _SUBEDGES + 1) / _SUBEDGES
    above = _number_above(canary, edges + BUCKETS_PER_OCTAVE * math.log2(ratio))
    control_above = _number_above(control, edges)
    n, control_n = sum(canary.values()), sum(control.values())
    up = np.array([[True], [False]])
    angle = math.asin(math.sqrt(1.0 - quantile))
    products = _log_bets(above, n, angle, up) + _log_bets(control_above, control_n, angle, ~up)
    least = products.min(axis=1)
    return _evidences(least[0], least[1])


def mean(evidences: list[float]) -> float:
    """Return the logarithm of the mean of e-values, given and returned as logarithms.

    The mean of e-values is one, however they depend on one another (Vovk and Wang 2021).
    """
    most = max(evidences)
    return most + math.log(sum(math.exp(one - most) for one in evidences) / len(evidences))


def e_value(log_e: float) -> float:
    """Return the e-value itself, at most about 10^304."""
    return math.exp(min(LARGEST_LOG, log_e))


def _log_bets(
    bad: Floats | float, total: Floats | float, angle: Floats | float, up: NDArray[np.bool_]
) -> Floats:
    """Return the log of one arm's e-process against the share of an angle; all shapes are broadcast."""
    start = np.minimum(np.maximum(angle, _LEAST_ANGLE), math.pi / 2.0 - _LEAST_ANGLE)[..., None]
    is_up = np.asarray(up)[..., None]
    room = np.where(is_up, math.pi / 2.0 - start, start)
    step, tangent = np.where(is_up, _SINES, -_SINES), np.tan(start)
    # sin(t + o) / sin(t) and cos(t + o) / cos(t), with o at most half of the room that there is
    half = room / 2.0
    cosine = np.cos(half)
    near, far = 0.5 / cosine, cosine / np.cos(room)
    more, fewer = np.where(is_up, far, near), np.where(is_up, near, far)
    has_room = half > _EFFECTS
    more = np.where(has_room, _COSINES + step / tangent, more)
    fewer = np.where(has_room, _COSINES - step * tangent, fewer)
    bad = np.asarray(bad, dtype=np.float64)[..., None]
    good = np.asarray(total, dtype=np.float64)[..., None] - bad
    ratios = 2.0 * (bad * np.log(more) + good * np.log(fewer))
    most = np.maximum(0.0, np.maximum.reduce(ratios, axis=-1))
    won = np.add.reduce(np.exp(ratios - most[..., None]), axis=-1) / len(EFFECTS)
    log_e: Floats = most + np.log(KEPT * np.exp(-most) + (1.0 - KEPT) * won)
    return log_e


def _number_above(counts: Mapping[int, float], edges: Floats) -> Floats:
    """Return how many durations are above each edge; edges are in buckets."""
    dense = np.zeros(LAST_BUCKET + 1)
    for index, number in counts.items():
        dense[index] = number
    below = np.concatenate([[0.0], np.cumsum(dense)])
    above: Floats = below[-1] - np.interp(edges, np.arange(LAST_BUCKET + 2), below)
    return above


def _evidences(harm: np.float64, safety: np.float64) -> Evidences:
    return Evidences(float(harm), float(safety))
