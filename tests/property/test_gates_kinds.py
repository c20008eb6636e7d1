"""Validity of each kind of evidence: at most 1 on average where nothing is wrong, by counting every outcome.

Simulations have fixed seeds; the tolerance is stated with each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.rollout.gates.comparison import Basis, compare
from fleet.rollout.gates.eprocess import Counts, Evidences, against_limit
from fleet.rollout.gates.evidence import Arm, Evidence, Tally, gathered
from fleet.rollout.gates.gate import Outcome, judge
from fleet.rollout.installs import installs_fail
from fleet.rollout.plans.plan import Metric, MetricGate
from tests.support.rollouts import plan

SAMPLES = 4
CONFIDENCE = MetricGate(metric=Metric.CONFIDENCE_DRIFT, margin=0.1)
INPUT = MetricGate(metric=Metric.INPUT_DRIFT, margin=0.1, feature="input.0")
ERRORS = MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.01, limit=0.05)
OUTPUT = MetricGate(metric=Metric.OUTPUT_DRIFT, margin=0.1)
LATENCY = MetricGate(metric=Metric.LATENCY, quantile=0.9, ratio=1.2, budget_us=4.0)
MEMORY = MetricGate(metric=Metric.MEMORY, quantile=0.5, ratio=2.0, budget_bytes=2.0**30, minimum_samples=1)


def splits(shares: tuple[float, ...]) -> Iterator[tuple[dict[int, int], float]]:
    """Return every way in which samples can fall into three cells, and its probability."""
    for a in range(SAMPLES + 1):
        for b in range(SAMPLES + 1 - a):
            counts = (a, b, SAMPLES - a - b)
            ways = math.factorial(SAMPLES) / math.prod(map(math.factorial, counts))
            chance = ways * math.prod(p**n for p, n in zip(shares, counts, strict=True))
            yield {cell: n for cell, n in enumerate(counts) if n}, chance


def evidences(gate: MetricGate, canary: dict[int, int], control: dict[int, int]) -> Evidences:
    one, other = (Arm(1, 1, 0, (Tally.of_cells(cells),)) for cells in (canary, control))
    return compare(gate, 0, Basis.CONCURRENT, Evidence(one, other))[0][0].evidences


@pytest.mark.parametrize("gate", [CONFIDENCE, INPUT], ids=["confidence", "input"])
@pytest.mark.parametrize("control", [(0.2, 0.3, 0.5), (0.05, 0.05, 0.9)])
def test_drift_is_worth_1_on_average_at_most(gate: MetricGate, control: tuple[float, ...]) -> None:
    """At the margin below the first edge, within it below the second: no drift, and only just."""
    canary = (control[0] + gate.margin, control[1] - gate.margin / 2, control[2] - gate.margin / 2)
    harm = safety = total = 0.0
    for one, chance in splits(canary):
        for other, beside in splits(control):
            found = evidences(gate, one, other)
            harm += chance * beside * math.exp(found.harm)
            safety += chance * beside * math.exp(found.safety)
            total += chance * beside
    assert total == pytest.approx(1.0)
    assert harm <= 1.0 + 1e-6
    assert safety <= 1.0 + 1e-6


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 200), st.sampled_from([0.01, 0.05, 0.3]))
def test_who_has_not_ended_takes_from_the_evidence(failed: int, later: int, ok: int, share: float) -> None:
    """Counted as a success first, as what it became afterwards: the evidence only ever rises to the last."""
    ordered = failed + later + ok
    now = against_limit([Counts(failed, ordered)], share)[0].harm
    end = against_limit([Counts(failed + later, ordered)], share)[0].harm
    assert now <= end + 1e-9


def test_installs_at_the_share_that_may_fail_seldom_stop_a_stage() -> None:
    """60 stages of 400 devices, looked at after every failure; failures are told at once, successes late.

    One part of the budget is 1 / 600. Tolerance: 2 or more of 60 have a probability below 0.005.
    """
    the_plan, rng = plan(maximum_failed_share=0.05), np.random.default_rng(8)
    stopped = 0
    for _ in range(60):
        fails = rng.random(400) < 0.05
        at = fails.nonzero()[0]
        stopped += any(
            installs_fail(the_plan, number, int(place) + 1, 100_000) is not None
            for number, place in enumerate(at, start=1)
        )
    assert stopped <= 1


def test_installs_that_all_fail_stop_a_large_stage_after_a_few() -> None:
    the_plan = plan(maximum_failed_share=0.05)
    first = next(n for n in range(1, 100) if installs_fail(the_plan, n, n, 100_000) is not None)
    assert first <= 8


def test_memory_that_differs_between_devices_is_not_harm() -> None:
    """40 canaries and 120 controls drawn from one distribution, 40 runs, readings without end.

    Tolerance: at 1/300 a run, 2 or more of 40 have a probability below 0.01.
    """
    rng = np.random.default_rng(9)
    outcomes = []
    for _ in range(40):
        arms = []
        for devices in (40, 120):
            cells, numbers = np.unique(rng.integers(60, 63, devices), return_counts=True)
            read = {int(c): int(n) * 1000 for c, n in zip(cells, numbers, strict=True)}
            total, bad = devices * 1000, sum(c * n for c, n in read.items())
            squares = float(sum(c * c * n for c, n in read.items()))
            one = Tally(bad, total, squares, float(bad), float(total), read)  # of windows with one reading
            arms.append(Arm(devices, total, 0, (one,)))
        evidence = (Evidence(arms[0], arms[1]),)
        outcomes.append(
            judge(plan(metrics=(MEMORY,)), evidence, has_control=True, heard=1, expected=1).outcome
        )
    assert outcomes.count(Outcome.FAIL) <= 1
    assert outcomes.count(Outcome.PASS) >= 30


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    st.sampled_from([ERRORS, OUTPUT, CONFIDENCE, INPUT, LATENCY, MEMORY]),
    st.sampled_from(list(Basis)),
    st.integers(0, 10**6),
    st.integers(1, 3),
)
def test_what_is_left_out_leaves_what_the_others_said(
    gate: MetricGate, basis: Basis, seed: int, classes: int
) -> None:
    """Also where it alone said that a class, a bin or a bucket was ever seen."""
    rng = np.random.default_rng(seed)
    others, part = said(gate, rng, classes, most=9), said(gate, rng, classes, most=12)
    (left,) = compare(gate, 0, basis, others.plus(part), [part])
    (alone,) = compare(gate, 0, basis, others)
    for one, other in zip(left, alone, strict=True):
        assert (one.name, one.canary, one.control) == (other.name, other.canary, other.control)
        assert one.evidences == pytest.approx(other.evidences, rel=1e-9, abs=1e-9)


def said(gate: MetricGate, rng: np.random.Generator, classes: int, *, most: int) -> Evidence:
    """Return what devices of some classes said in two spans, in cells below a number or as bad of so many."""
    evidence = Evidence.empty(1)
    for span in (0, 1):
        sides = []
        for _ in ("canary", "control"):
            by_class = {}
            for name in range(classes):
                counts = rng.integers(1, 40, most).tolist()
                shares = Tally.of(counts[0], sum(counts))
                one = shares if gate is ERRORS else Tally.of_cells(dict(enumerate(counts)))
                by_class[f"class={name}"] = Arm(2, 2, 0, (one,))
            sides.append(gathered(by_class, 1))
        evidence = evidence.plus(Evidence(sides[0], sides[1]).during(span))
    return evidence
