"""Anytime-valid confidence sequences for a proportion.

A gate looks at its evidence again with every window that arrives. Ordinary confidence intervals do not
survive that: look often enough and any of them will exclude the truth. A confidence sequence holds at all
sample sizes at once::

    P( for every n >= 1:  p in C_n ) >= 1 - alpha

Ours comes from the method of mixtures (Robbins 1970, "Statistical methods related to the law of the
iterated logarithm"; Howard, Ramdas, McAuliffe, Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic
confidence sequences"). With k bad of n, the likelihood ratio of a Beta(1/2, 1/2) mixture against p,

    M_n(p) = B(k + 1/2, n - k + 1/2) / B(1/2, 1/2)  /  (p^k (1 - p)^(n - k)),

is a non-negative martingale of mean 1 when p is the truth. By Ville's inequality it ever reaches 1/alpha
with probability alpha at most, so C_n = {p : M_n(p) < 1/alpha}. M_n falls up to k/n and rises after it:
C_n is an interval, and bisection finds its ends.

Samples are taken as independent draws of one proportion within an arm; see ``docs/reference/gates.md`` for
what that leaves out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

MOST_SAMPLES = 10**9
"""More are scaled down to this, which only widens the interval; beyond, `math.lgamma` loses digits."""

_HALVINGS = 48
_LOG_BETA_HALF_HALF = math.log(math.pi)  # B(1/2, 1/2) = pi


class Interval(NamedTuple):
    """A closed interval."""

    lower: float
    upper: float


def log_evidence_against(p: float, bad: int, total: int) -> float:
    """Return log M_n(p), see the head of this file; infinite where p is impossible.

    Args:
        p: A proportion, 0 to 1.
        bad: k.
        total: n.
    """
    good = total - bad
    log_mixture = (
        math.lgamma(bad + 0.5) + math.lgamma(good + 0.5) - math.lgamma(total + 1.0) - _LOG_BETA_HALF_HALF
    )
    if (p <= 0.0 and bad > 0) or (p >= 1.0 and good > 0):
        return math.inf
    return log_mixture - (bad * math.log(p) if bad else 0.0) - (good * math.log1p(-p) if good else 0.0)


def proportion_interval(bad: int, total: int, alpha: float) -> Interval:
    """Return C_n, the interval that holds the proportion at every look with probability 1 - alpha.

    Args:
        bad: How many samples were bad, 0 to ``total``.
        total: How many samples there were; with 0 the interval is 0 to 1.
        alpha: Probability that the sequence of intervals ever misses, above 0 and below 1.
    """
    if total > MOST_SAMPLES:
        bad, total = bad * MOST_SAMPLES // total, MOST_SAMPLES
    if total == 0:
        return Interval(0.0, 1.0)
    limit = -math.log(alpha)
    middle = bad / total
    return Interval(
        _edge(0.0, middle, bad, total, limit),
        _edge(1.0, middle, bad, total, limit),
    )


def difference_interval(bad: int, total: int, control_bad: int, control_total: int, alpha: float) -> Interval:
    """Return an interval for the first proportion less the second, valid at every look of both.

    Each arm gets half of ``alpha`` (union bound), so the two need not be independent.
    """
    first = proportion_interval(bad, total, alpha / 2.0)
    second = proportion_interval(control_bad, control_total, alpha / 2.0)
    return Interval(first.lower - second.upper, first.upper - second.lower)


def _edge(outside: float, inside: float, bad: int, total: int, limit: float) -> float:
    """Return where M_n crosses the limit between a point in C_n and an end of [0, 1], rounded outwards."""
    if log_evidence_against(outside, bad, total) < limit:
        return outside
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2.0
        if log_evidence_against(middle, bad, total) < limit:
            inside = middle
        else:
            outside = middle
    return outside
