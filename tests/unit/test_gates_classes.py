"""Classes of devices: harm in one of them is found and named, and another mix of them is no harm."""

from __future__ import annotations

import pytest

from fleet.rollout.gates.evidence import Arm, Evidence, Tally, gathered
from fleet.rollout.gates.gate import Outcome, Verdict, judge
from fleet.rollout.plans.plan import Metric, MetricGate
from tests.support.rollouts import plan

ERRORS = MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.02, limit=0.05)
LATENCY = MetricGate(metric=Metric.LATENCY, quantile=0.9, ratio=1.2, budget_us=1e6)
CLASSES = MetricGate(metric=Metric.OUTPUT_DRIFT, margin=0.05)
PI3, PI4, PI5 = "hardware=pi3", "hardware=pi4", "hardware=pi5"


def arm(devices: int, tally: Tally) -> Arm:
    return Arm(devices, devices, 0, (tally,))


def said(gate: MetricGate, canary: dict[str, Arm], control: dict[str, Arm]) -> Verdict:
    evidence = Evidence(gathered(canary, 1), gathered(control, 1))
    return judge(plan(metrics=(gate,)), (evidence,), has_control=True, heard=1, expected=1)


def test_harm_in_one_class_only_is_found_and_named() -> None:
    calm, harmed = arm(20, Tally(100, 20_000)), arm(2, Tally(120, 1000))
    control = {PI3: arm(200, Tally(1000, 200_000)), PI4: arm(20, Tally(50, 10_000))}
    verdict = said(ERRORS, {PI3: calm, PI4: harmed}, control)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.metrics[0].classes == (PI4,)
    assert verdict.sentence.startswith(
        "FAIL: inference errors 12.0% of 1,000 on 2 canaries against 0.5% of 10,000 on 20 controls, "
        "hardware=pi4; e-value "
    )


def test_a_class_that_leans_to_harm_holds_a_pass_back() -> None:
    calm, doubtful = arm(20, Tally(100, 20_000)), arm(1, Tally(12, 150))
    control = {PI3: arm(200, Tally(1000, 200_000)), PI4: arm(20, Tally(50, 10_000))}
    verdict = said(ERRORS, {PI3: calm, PI4: doubtful}, control)
    assert verdict.metrics[0].safety >= verdict.metrics[0].needed
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "hardware=pi4; the class leans to harm" in verdict.sentence
    assert said(ERRORS, {PI3: calm, PI4: arm(1, Tally(1, 150))}, control).outcome is Outcome.PASS


def test_another_mix_of_classes_is_not_harm() -> None:
    """Half of the canaries are of the class with 10 % errors, of the controls one in a hundred."""
    canary = {PI3: arm(10, Tally(50, 10_000)), PI4: arm(10, Tally(1000, 10_000))}
    control = {PI3: arm(990, Tally(4950, 990_000)), PI4: arm(10, Tally(1000, 10_000))}
    assert said(ERRORS, canary, control).outcome is Outcome.PASS
    unaware = {"": gathered(canary, 1)}, {"": gathered(control, 1)}
    crude = tuple({"": Arm(a[""].devices, a[""].windows, 0, a[""].tallies)} for a in unaware)
    assert said(ERRORS, *crude).outcome is Outcome.FAIL


def test_devices_without_controls_of_their_class_are_left_out() -> None:
    canary = {
        PI3: arm(10, Tally(50, 10_000)),
        PI4: arm(10, Tally(60, 10_000)),
        PI5: arm(10, Tally(1500, 10_000)),
    }
    control = {PI3: arm(90, Tally(450, 90_000)), PI4: arm(90, Tally(450, 90_000))}
    assert said(ERRORS, canary, control).outcome is Outcome.PASS


HISTOGRAM = {40: 300, 41: 400, 42: 200, 43: 80, 44: 20}


def counted(devices: int, cells: dict[int, int]) -> Arm:
    """Return an arm of devices that each sent one window with these cells."""
    whole = Arm.empty(1)
    for _ in range(devices):
        whole = whole.plus(Arm(1, 1, 0, (Tally.of_cells(cells),)))
    return whole


def slowed(devices: int, buckets: int) -> Arm:
    return counted(devices, {bucket + buckets: number for bucket, number in HISTOGRAM.items()})


@pytest.mark.parametrize(
    ("buckets", "outcome"), [(0, Outcome.PASS), (1, Outcome.INCONCLUSIVE), (4, Outcome.FAIL)]
)
def test_latency_is_compared_by_a_quantile(buckets: int, outcome: Outcome) -> None:
    """A bucket is a factor of 1.19, at the margin of 1.2; four are 2."""
    verdict = said(LATENCY, {"": slowed(10, buckets)}, {"": slowed(100, 0)})
    assert verdict.outcome is outcome
    if outcome is Outcome.FAIL:
        assert verdict.sentence.startswith(
            "FAIL: latency of 0.9 of requests 3,444 µs of 10,000 on 10 canaries against 1,722 µs of 100,000 "
            "on 100 controls; e-value"
        )


def test_a_class_of_answers_that_becomes_more_is_drift() -> None:
    calm, moved = counted(20, {0: 460, 1: 540}), counted(20, {0: 300, 1: 700})
    control = counted(50, {0: 460, 1: 540})
    assert said(CLASSES, {"": calm}, {"": control}).outcome is Outcome.PASS
    verdict = said(CLASSES, {"": moved}, {"": control})
    assert verdict.outcome is Outcome.FAIL
    assert "class 1 70.0% of 20,000 on 20 canaries against class 1 54.0%" in verdict.sentence


def test_harm_beside_controls_of_another_hour_must_be_beyond_the_limit() -> None:
    earlier = Evidence(arm(1, Tally(5, 1000)), arm(50, Tally(250, 50_000)))
    for bad, outcome in [(5, Outcome.PASS), (40, Outcome.INCONCLUSIVE), (150, Outcome.FAIL)]:
        now = Evidence(arm(50, Tally(bad * 10, 10_000)), Arm.empty(1))
        verdict = judge(plan(metrics=(ERRORS,)), (earlier, now), has_control=False, heard=1, expected=1)
        assert verdict.outcome is outcome, bad


def test_classes_that_nothing_was_heard_of_yet_are_in_the_mean_from_the_first_look() -> None:
    """Or each class that comes to be heard of would have the whole budget for a while."""
    canary = {PI3: arm(20, Tally(100, 20_000)), PI4: arm(20, Tally(700, 10_000))}
    control = {PI3: arm(200, Tally(1000, 200_000)), PI4: arm(200, Tally(1000, 200_000))}
    evidence = Evidence(gathered(canary, 1), gathered(control, 1))
    harms = [
        judge(
            plan(metrics=(ERRORS,)), (evidence,), has_control=True, heard=1, expected=1, classes=classes
        ).metrics[0]
        for classes in (0, 2, 20)
    ]
    assert harms[0] == harms[1]
    assert harms[0].harm > 2.0 * harms[2].harm > 2.0


def test_the_mean_is_looked_at_before_enough_was_heard_of_any_class() -> None:
    """What is the whole's e-value at some looks and the mean at others is no e-value."""
    few = MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.02, limit=0.05, minimum_samples=300)
    canary = {PI3: arm(10, Tally(20, 250)), PI4: arm(10, Tally(20, 250))}
    control = {PI3: arm(100, Tally(50, 2_500)), PI4: arm(100, Tally(50, 2_500))}
    unaware = ({"": Arm(20, 20, 0, (Tally(40, 500),))}, {"": Arm(200, 200, 0, (Tally(100, 5_000),))})
    whole = said(few, *unaware).metrics[0].harm
    assert whole > 1.0
    assert said(few, canary, control).metrics[0].harm == pytest.approx((whole + 1.0) / 2.0)
