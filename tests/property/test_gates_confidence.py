"""Coverage under continuous peeking, and the gate's error rates, by simulation with fixed seeds.

The Monte-Carlo tolerance is stated with each test: a bound that holds with probability far beyond 99.9 %
if the claim is true, and that a fixed-sample interval (1.96 standard errors) misses by far.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.rollout.confidence import difference_interval, log_evidence_against, proportion_interval
from fleet.rollout.evidence import Arm, Evidence, Tally
from fleet.rollout.gates import Outcome, judge
from tests.support.rollouts import LABELS, plan


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


COUNTS = st.tuples(st.integers(0, 400), st.integers(0, 4000)).map(lambda t: Tally(t[0], t[0] + t[1]))


@settings(derandomize=True, deadline=None)
@given(COUNTS, COUNTS, st.booleans())
def test_a_metric_passes_and_fails_exactly_where_its_interval_says(
    canary: Tally, control: Tally, has_control: bool
) -> None:
    evidence = Evidence(Arm(1, 1, 0, (canary,)), Arm(7, 7, 0, (control,)))
    metric = judge(plan(), (evidence,), has_control=has_control, heard=1, expected=1).metrics[0]
    arms = (canary, control) if has_control else (canary,)
    enough = all(tally.total >= LABELS.minimum_samples for tally in arms)
    assert metric.bound == (LABELS.margin if has_control else LABELS.limit)
    assert (metric.outcome is Outcome.PASS) == (enough and metric.upper <= metric.bound)
    assert (metric.outcome is Outcome.FAIL) == (enough and metric.lower > metric.bound)


def first_verdict(canary_rate: float, control_rate: float, rng: np.random.Generator) -> tuple[Outcome, int]:
    """Look after every 20 canary samples, 140 control samples; return the first conclusion and when."""
    canary, control = np.zeros(2, int), np.zeros(2, int)
    for look in range(1, 101):
        canary += (rng.binomial(20, canary_rate), 20)
        control += (rng.binomial(140, control_rate), 140)
        evidence = Evidence(
            Arm(1, look, 0, (Tally(int(canary[0]), int(canary[1])),)),
            Arm(7, 7 * look, 0, (Tally(int(control[0]), int(control[1])),)),
        )
        outcome = judge(plan(), (evidence,), has_control=True, heard=1, expected=1).outcome
        if outcome in {Outcome.PASS, Outcome.FAIL}:
            return outcome, int(canary[1])
    return Outcome.INCONCLUSIVE, int(canary[1])


@pytest.mark.parametrize(
    ("canary_rate", "wrong"),
    [(0.03, Outcome.FAIL), (0.12, Outcome.FAIL), (0.14, Outcome.PASS), (0.2, Outcome.PASS)],
)
def test_wrong_verdicts_stay_within_the_error_budget(canary_rate: float, wrong: Outcome) -> None:
    """Margin 10 points, controls at 3 %, 150 runs of up to 100 looks: 1 % wrong at most, over 3 stages.

    Tolerance: at a rate of 1/300 a stage, 5 or more wrong of 150 have a probability below 0.0003.
    """
    rng = np.random.default_rng(5)
    outcomes = [first_verdict(canary_rate, 0.03, rng)[0] for _ in range(150)]
    assert outcomes.count(wrong) <= 4


def test_clear_cases_are_decided_soon() -> None:
    """What the demo needs: half of the harmless runs pass by 500 samples, harm is caught by 160."""
    rng = np.random.default_rng(6)
    harmless = [first_verdict(0.03, 0.03, rng) for _ in range(60)]
    harmful = [first_verdict(0.7, 0.03, rng) for _ in range(60)]
    assert {outcome for outcome, _ in harmless} == {Outcome.PASS}
    assert np.median([samples for _, samples in harmless]) <= 500
    assert all(outcome is Outcome.FAIL and samples <= 160 for outcome, samples in harmful)
