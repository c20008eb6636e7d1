"""Coverage of the interval under continuous peeking, by simulation with fixed seeds.

The Monte-Carlo tolerance is stated with each test: a bound that holds with probability far beyond 99.9 %
if the claim is true, and that a fixed-sample interval (1.96 standard errors) misses by far.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.rollout.gates.confidence import difference_interval, log_evidence_against, proportion_interval


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.97])
def test_the_interval_covers_at_every_look_at_once(p: float) -> None:
    """400 streams of 600 samples, a look at each: at alpha 0.05 at most 5 % ever miss.

    Tolerance: four standard errors of 400 draws at 0.05, that is 5 % + 4.4 %.
    """
    alpha, streams, length = 0.05, 400, 600
    bad = np.cumsum(np.random.default_rng(11).random((streams, length)) < p, axis=1)
    limit = -math.log(alpha)
    missed = sum(
        any(log_evidence_against(p, int(k), n) >= limit for n, k in enumerate(row, start=1)) for row in bad
    )
    assert missed / streams <= alpha + 4 * math.sqrt(alpha * (1 - alpha) / streams)


def test_an_interval_for_a_single_look_would_not_survive_peeking() -> None:
    """The control of the test above: the same streams break the textbook interval in far more than 5 %."""
    p, streams, length = 0.5, 400, 600
    bad = np.cumsum(np.random.default_rng(11).random((streams, length)) < p, axis=1)
    n = np.arange(1, length + 1)
    looks = n >= 30
    outside = np.abs(bad / n - p) > 1.96 * math.sqrt(p * (1 - p)) / np.sqrt(n)
    assert outside[:, looks].any(axis=1).mean() > 0.2


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000), st.sampled_from([1e-6, 1e-3, 0.05, 0.4]))
def test_the_interval_holds_exactly_what_the_evidence_does_not_exclude(a: int, b: int, alpha: float) -> None:
    bad, total = a, a + b
    lower, upper = proportion_interval(bad, total, alpha)
    assert 0.0 <= lower <= upper <= 1.0
    if total:
        assert lower <= bad / total <= upper
    for p in (0.001, 0.03, 0.3, 0.5, 0.9):
        against = log_evidence_against(p, bad, total)
        if abs(against + math.log(alpha)) > 1e-6:
            assert (lower <= p <= upper) == (against < -math.log(alpha))


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 500), st.integers(1, 500), st.integers(0, 500), st.integers(1, 500))
def test_a_difference_turned_round_changes_its_sign(a: int, b: int, c: int, d: int) -> None:
    lower, upper = difference_interval(a, a + b, c, c + d, 0.01)
    turned = difference_interval(c, c + d, a, a + b, 0.01)
    assert turned.lower == pytest.approx(-upper)
    assert turned.upper == pytest.approx(-lower)
