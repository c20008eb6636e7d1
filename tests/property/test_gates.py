"""The gate: its verdicts follow from its e-values, and its error rates hold under continuous peeking.

Simulations have fixed seeds; the tolerance of each is stated with it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fleet.rollout.gates.evidence import Arm, Evidence, Tally, gathered
from fleet.rollout.gates.gate import Outcome, Verdict, judge
from fleet.rollout.plans.plan import Gate, Metric, MetricGate, Plan
from tests.support.rollouts import LABELS, plan

COUNTS = st.tuples(st.integers(0, 400), st.integers(0, 4000)).map(lambda t: Tally.of(t[0], t[0] + t[1]))
ARMS = st.builds(lambda devices, tally: Arm(devices, devices, 0, (tally,)), st.integers(1, 9), COUNTS)
CLASSED = st.dictionaries(st.sampled_from(["", "pi3", "pi4", "pi5"]), ARMS, max_size=4).map(
    lambda arms: gathered(arms, 1)
)


def judged(canary: Arm, control: Arm, the_plan: Plan | None = None, *, has_control: bool = True) -> Verdict:
    return judge(
        the_plan or plan(), (Evidence(canary, control),), has_control=has_control, heard=1, expected=1
    )


@settings(derandomize=True, deadline=None, max_examples=50)
@given(CLASSED, CLASSED, st.booleans())
def test_a_metric_passes_and_fails_exactly_where_its_e_values_say(
    canary: Arm, control: Arm, has_control: bool
) -> None:
    metric = judged(canary, control, has_control=has_control).metrics[0]
    arms = (canary, control) if has_control else (canary,)
    enough = all(arm.tallies[0].total >= LABELS.minimum_samples for arm in arms)
    assert metric.needed == pytest.approx(300.0)
    assert (metric.outcome is Outcome.FAIL) == (enough and metric.harm >= metric.needed)
    if metric.outcome is Outcome.PASS:
        assert enough
        assert metric.safety >= metric.needed
    if metric.harm >= metric.needed and metric.safety >= metric.needed:
        assert metric.classes  # a class is harmed, and the whole is safe


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(CLASSED, max_size=5), st.randoms(use_true_random=False))
def test_evidence_is_the_same_in_whatever_order_it_is_added(parts: list[Arm], random: object) -> None:
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    sums = []
    for order in (parts, shuffled):
        whole = Arm.empty(1)
        for part in order:
            whole = whole.plus(part)
        sums.append(whole)
    assert sums[0] == sums[1]
    assert sum(arm.tallies[0].total for arm in sums[0].strata.values()) <= sums[0].tallies[0].total


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    st.integers(100, 3000),
    st.integers(0, 300),
    st.integers(100, 3000),
    st.integers(0, 300),
    st.integers(1, 50),
)
def test_more_bad_canaries_are_never_better(n: int, k: int, m: int, j: int, more: int) -> None:
    def metric(bad: int) -> tuple[float, float]:
        said = judged(Arm(1, 1, 0, (Tally(bad, n),)), Arm(7, 7, 0, (Tally(min(j, m), m),))).metrics[0]
        return said.harm, said.safety

    fewer, others = metric(min(k, n)), metric(min(k + more, n))
    assert others[0] >= fewer[0] * (1.0 - 1e-3)  # the least over a grid is exact to a fraction of a percent
    assert others[1] <= fewer[1] * (1.0 + 1e-3)


TALLIES = st.builds(
    Tally,
    bad=st.integers(-3, 300),
    total=st.integers(-3, 300),
    bad_squared=st.floats(),
    cross=st.floats(),
    total_squared=st.floats(),
    cells=st.dictionaries(st.integers(0, 127), st.integers(-2, 300), max_size=3),
)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(TALLIES, TALLIES, st.sampled_from(list(Metric)))
def test_evidence_that_cannot_be_never_passes(canary: Tally, control: Tally, metric: Metric) -> None:
    gate = MetricGate(
        metric=metric,
        margin=0.1,
        limit=0.3,
        minimum_samples=1,
        budget_us=1e3,
        threshold=0.5,
        quantile=0.9,
        ratio=1.2,
        budget_bytes=1e6,
        feature="input.0",
    )
    said = judged(Arm(1, 1, 0, (canary,)), Arm(1, 1, 0, (control,)), plan(metrics=(gate,)))
    squares = [x for t in (canary, control) for x in (t.bad_squared, t.cross, t.total_squared)]
    if not all(math.isfinite(x) and x >= 0.0 for x in squares) or min(canary.total, control.total) < 0:
        assert said.outcome is Outcome.ERROR
    assert all(math.isfinite(one.harm) and math.isfinite(one.safety) for one in said.metrics)


def first_verdict(
    canary_rate: float,
    control_rate: float,
    rng: np.random.Generator,
    correlation: float = 0.0,
    canaries: int = 1,
) -> tuple[Outcome, int]:
    """Look after every window of 50 samples of each canary and of 7 controls for each; until a conclusion."""
    rates: list[NDArray[np.float64]] = []
    for share, devices in ((canary_rate, canaries), (control_rate, 7 * canaries)):
        size = 1.0 / max(correlation, 1e-9) - 1.0
        rates.append(rng.beta(share * size, (1.0 - share) * size, devices))
    arms = [Arm.empty(1), Arm.empty(1)]
    for look in range(1, 31):
        for side, rate in enumerate(rates):
            bad = rng.binomial(50, rate)
            tally = Tally(
                bad=int(bad.sum()),
                total=50 * len(rate),
                bad_squared=float((bad * bad).sum()),
                cross=50.0 * float(bad.sum()),
                total_squared=2500.0 * len(rate),
            )
            arms[side] = arms[side].plus(Arm(len(rate) if look == 1 else 0, len(rate), 0, (tally,)))
        outcome = judged(arms[0], arms[1]).outcome
        if outcome in {Outcome.PASS, Outcome.FAIL}:
            return outcome, arms[0].tallies[0].total
    return Outcome.INCONCLUSIVE, arms[0].tallies[0].total


@pytest.mark.parametrize(
    ("canary_rate", "wrong"),
    [(0.12, Outcome.FAIL), (0.14, Outcome.PASS)],
)
def test_wrong_verdicts_stay_within_the_error_budget(canary_rate: float, wrong: Outcome) -> None:
    """Margin 10 points, controls at 3 %, 40 runs of up to 30 looks: 1 % wrong at most, over 3 stages.

    Tolerance: at a rate of 1/300 a stage, 3 or more wrong of 40 have a probability below 0.0004.
    """
    rng = np.random.default_rng(5)
    outcomes = [first_verdict(canary_rate, 0.03, rng)[0] for _ in range(40)]
    assert outcomes.count(wrong) <= 2


def test_clear_cases_are_decided_soon() -> None:
    """What the demo needs: half of the harmless runs pass by 300 samples, harm is caught by 150."""
    rng = np.random.default_rng(6)
    harmless = [first_verdict(0.03, 0.03, rng) for _ in range(20)]
    harmful = [first_verdict(0.7, 0.03, rng) for _ in range(20)]
    assert {outcome for outcome, _ in harmless} == {Outcome.PASS}
    assert np.median([samples for _, samples in harmless]) <= 300
    assert all(outcome is Outcome.FAIL and samples <= 150 for outcome, samples in harmful)


def test_devices_that_differ_do_not_roll_back_a_harmless_version() -> None:
    """Canaries at 12 %, controls at 3 %, margin 10 points: the worst harmless case, 40 runs of 30 looks.

    Tolerance as above. Taken for independent draws, the same answers are wrong in far more runs.
    """
    rng = np.random.default_rng(7)
    outcomes = [first_verdict(0.12, 0.03, rng, 0.1, canaries=8)[0] for _ in range(40)]
    assert outcomes.count(Outcome.FAIL) <= 2


def test_a_plan_without_metrics_is_judged_on_installs_alone() -> None:
    said = judge(
        Plan(stages=plan().stages, gate=Gate()), (Evidence.empty(0),), has_control=True, heard=0, expected=1
    )
    assert said.outcome is Outcome.PASS
