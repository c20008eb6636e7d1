"""What each kind of evidence says: confidences, inputs, memory, shadows, installs; stages without a proof."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fleet.drift.features import CONFIDENCE_EDGES, OUTPUT_CONFIDENCE
from fleet.drift.profile import FeatureCounts
from fleet.protocol.errors import InvalidPlan
from fleet.protocol.memory import bucket_of_bytes
from fleet.protocol.records import ShadowReport
from fleet.rollout.gates.comparison import Basis
from fleet.rollout.gates.evidence import Arm, Evidence, Tally
from fleet.rollout.gates.gate import Outcome, Verdict, judge, parts
from fleet.rollout.gates.sums import ArmSum
from fleet.rollout.gates.windows import MOST_ANSWERS
from fleet.rollout.installs import installs_fail
from fleet.rollout.plans.checks import check_plan
from fleet.rollout.plans.fit import check_sizes
from fleet.rollout.plans.plan import JudgedBy, Metric, MetricGate, Plan
from fleet.rollout.state.rollout import Status
from tests.support.rollouts import LABELS, NEW, Campaign, plan, tally, window

MIB = 2**20
CONFIDENCE = MetricGate(metric=Metric.CONFIDENCE_DRIFT, margin=0.1)
INPUT = MetricGate(metric=Metric.INPUT_DRIFT, margin=0.1, feature="input.0")
MEMORY = MetricGate(
    metric=Metric.MEMORY, quantile=0.5, ratio=1.3, budget_bytes=100.0 * MIB, minimum_samples=10
)
SHADOW = MetricGate(metric=Metric.SHADOW_DISAGREEMENT, limit=0.1)


def cells_arm(devices: int, cells: dict[int, int], windows: int | None = None) -> Arm:
    """Return devices whose windows all said the same."""
    windows = windows or devices
    each = Tally.of_cells(cells)
    tally = Tally(
        each.bad * windows,
        each.total * windows,
        each.bad_squared * windows,
        each.cross * windows,
        each.total_squared * windows,
        {cell: number * windows for cell, number in cells.items()},
    )
    return Arm(devices, windows, 0, (tally,))


def shadowed(report: ShadowReport) -> Arm:
    """Return an arm that a shadow was reported to."""
    one = ArmSum((SHADOW,))
    one.add_shadow(report)
    return one.arm()


def said(gate: MetricGate, canary: Arm, control: Arm, *, has_control: bool = True) -> Verdict:
    evidence = Evidence(canary, control)
    return judge(plan(metrics=(gate,)), (evidence,), has_control=has_control, heard=1, expected=1)


def shadow(disagreed: int, compared: int, **other: Any) -> ShadowReport:
    report = ShadowReport(
        started_at_s=0.0,
        ended_at_s=60.0,
        deployment_id="r7-0",
        model="digits",
        active_version=1,
        version=2,
        manifest_sha256=NEW,
        compared=compared,
        disagreed=disagreed,
    )
    return msgspec.structs.replace(report, **other)


def test_confidences_that_move_without_crossing_a_threshold_are_harm() -> None:
    """Half of the answers fall from 0.97 to 0.72: above 0.5 both, so that `unsure` sees nothing."""
    confident, doubtful = cells_arm(10, {20: 100}), cells_arm(10, {20: 50, 15: 50})
    verdict = said(CONFIDENCE, doubtful, confident)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.sentence.startswith(
        "FAIL: confidence below 0.7 50.0% of 1,000 on 10 canaries against below 0.7 0.0% of 1,000 on 10 "
        "controls; e-value "
    )
    assert said(CONFIDENCE, confident, cells_arm(70, {20: 100})).outcome is Outcome.PASS


def test_confidences_are_counted_by_bin_and_the_missing_ones_first() -> None:
    one = window(NEW, 0.0, confidence_cells=[0] * 20 + [7, 0])
    one.profile[OUTPUT_CONFIDENCE].missing = 3
    assert tally(one, CONFIDENCE) == Tally.of_cells({0: 3, 21: 7})
    assert len(CONFIDENCE_EDGES) == 21


def test_inputs_that_differ_are_no_harm_but_nothing_to_judge_by() -> None:
    verdict = said(INPUT, cells_arm(10, {2: 90, 5: 10}), cells_arm(70, {2: 10, 5: 90}))
    assert verdict.outcome is Outcome.ERROR
    assert verdict.sentence.startswith("ERROR: input.0 below edge 2 of its reference 90.0% of 1,000")
    assert "do not see the same inputs" in verdict.sentence
    assert said(INPUT, cells_arm(10, {2: 50, 5: 50}), cells_arm(70, {2: 50, 5: 50})).outcome is Outcome.PASS


def test_missing_inputs_are_a_difference_too() -> None:
    one = window(NEW, 0.0)
    one.profile["input.0"] = FeatureCounts(cells=[0, 5, 5, 0], missing=10)
    assert tally(one, INPUT) == Tally.of_cells({0: 10, 2: 5, 3: 5})
    assert said(INPUT, cells_arm(10, {0: 50, 2: 50}), cells_arm(70, {2: 100})).outcome is Outcome.ERROR


def test_harm_is_worse_than_inputs_that_differ() -> None:
    both = plan(metrics=(INPUT, LABELS))
    differ, alike = cells_arm(10, {2: 90, 5: 10}), cells_arm(70, {2: 10, 5: 90})
    arms = [
        msgspec.structs.replace(arm, tallies=(*arm.tallies, Tally(bad, 1000)))
        for arm, bad in ((differ, 700), (alike, 15))
    ]
    verdict = judge(both, (Evidence(arms[0], arms[1]),), has_control=True, heard=1, expected=1)
    assert verdict.outcome is Outcome.FAIL
    assert "label errors" in verdict.sentence


def test_memory_counts_for_as_much_as_there_are_devices() -> None:
    small, large = bucket_of_bytes(60 * MIB), bucket_of_bytes(120 * MIB)
    control = cells_arm(30, {small: 1}, windows=3000)
    verdict = said(MEMORY, cells_arm(20, {large: 1}, windows=2000), control)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.sentence.startswith("FAIL: memory at 0.5 of readings 128.0 MiB of 2,000 on 20 canaries")
    assert said(MEMORY, cells_arm(2, {large: 1}, windows=1200), control).outcome is Outcome.INCONCLUSIVE
    assert said(MEMORY, cells_arm(20, {small: 1}, windows=2000), control).outcome is Outcome.PASS


def test_memory_without_control_has_an_absolute_budget() -> None:
    for size, outcome in ((60, Outcome.PASS), (120, Outcome.FAIL)):
        canary = cells_arm(20, {bucket_of_bytes(size * MIB): 1})
        verdict = said(MEMORY, canary, Arm.empty(1), has_control=False)
        assert (verdict.outcome, verdict.metrics[0].basis) == (outcome, Basis.LIMIT)


def test_disagreement_in_the_shadow_is_held_against_the_limit_though_there_are_controls() -> None:
    arm = shadowed(shadow(400, 1000))
    assert (arm.devices, arm.windows) == (0, 0)
    verdict = said(SHADOW, msgspec.structs.replace(arm, devices=5), cells_arm(70, {0: 1}))
    assert (verdict.outcome, verdict.metrics[0].basis) == (Outcome.FAIL, Basis.LIMIT)
    assert verdict.sentence.startswith(
        "FAIL: shadow disagreement 40.0% of 1,000 in the shadow of the active version; e-value "
    )


def test_every_stages_shadows_count() -> None:
    """A device has one shadow, in the stage that reaches it; a stage may add too few to judge by."""
    first = msgspec.structs.replace(shadowed(shadow(20, 4000)), devices=8)
    second = msgspec.structs.replace(shadowed(shadow(1, 60)), devices=10)
    stages = tuple(Evidence(arm, Arm.empty(1)) for arm in (first, second))
    verdict = judge(plan(metrics=(SHADOW,)), stages, has_control=True, heard=1, expected=1)
    assert verdict.metrics[0].canary.total == 4060
    assert verdict.outcome is Outcome.PASS
    assert "0.5% of 4,060 in the shadow" in verdict.sentence


@pytest.mark.parametrize(
    ("failed", "size", "share", "fails"),
    [(0, 1, 0.0, False), (1, 1, 0.0, True), (1, 4, 0.25, False), (2, 4, 0.25, True), (1, 100, 0.01, False)],
)
def test_installs_fail_above_the_share(failed: int, size: int, share: float, fails: bool) -> None:
    the_plan = plan(maximum_failed_share=share)
    assert (installs_fail(the_plan, failed, size, size) is not None) is fails


def test_installs_fail_on_evidence_long_before_the_share_is_exceeded() -> None:
    the_plan = plan(maximum_failed_share=0.05)
    assert parts(the_plan) == 3 * 2
    assert installs_fail(the_plan, 3, 40, 10_000) is None
    why = installs_fail(the_plan, 15, 40, 10_000)
    assert why is not None
    assert why.startswith(
        "FAIL: 15 of the 40 devices of the stage that were sent the version failed; limit 5.0%"
    )
    assert "≥ 600" in why
    assert installs_fail(the_plan, 500, 9_999, 10_000) is None  # as many as may


def test_the_budget_is_split_over_stages_metrics_and_installs() -> None:
    alone, more = plan(metrics=(LABELS,)), plan(metrics=(LABELS, CONFIDENCE), maximum_failed_share=0.05)
    assert (parts(alone), parts(more)) == (3, 9)
    arm = Arm(5, 5, 0, (Tally(15, 500), Tally.of_cells({20: 500})))
    verdict = judge(more, (Evidence(arm, arm),), has_control=True, heard=1, expected=1)
    assert (verdict.error_budget, verdict.parts) == (0.01, 9)
    assert [metric.needed for metric in verdict.metrics] == [pytest.approx(900.0)] * 2
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def held_back() -> Plan:
    the_plan = plan(1, "80%", "all")
    last = msgspec.structs.replace(the_plan.stages[-1], judged_by=JudgedBy.INSTALLS)
    return msgspec.structs.replace(the_plan, stages=(*the_plan.stages[:-1], last))


def test_who_was_held_back_gets_the_version_without_a_proof_but_not_in_spite_of_one() -> None:
    calm, harmed = Arm(5, 5, 0, (Tally(15, 500),)), Arm(5, 5, 0, (Tally(350, 500),))
    before = Evidence(calm, calm)
    for arm, outcome in ((Arm.empty(1), Outcome.PASS), (calm, Outcome.PASS), (harmed, Outcome.FAIL)):
        stages = (before, before, Evidence(arm, Arm.empty(1)))
        assert judge(held_back(), stages, has_control=False, heard=0, expected=1).outcome is outcome
    early = judge(held_back(), (Evidence.empty(1),), has_control=True, heard=0, expected=1)
    assert early.outcome is Outcome.INCONCLUSIVE


def test_the_last_devices_are_controls_until_the_others_have_passed() -> None:
    campaign = Campaign(held_back())
    for stage in (0, 1):
        campaign.succeed(stage)
        assert campaign.rollout.controls > 0
        campaign.observe(rounds=6)
        assert campaign.rollout.stage_index == stage + 1
    assert [d.attempt.ordered_s is not None for d in campaign.cohort(2)] == [True]
    campaign.succeed(2)
    campaign.wait(5.0)  # no telemetry of it came
    assert campaign.status() is Status.SUCCEEDED


def test_a_stage_without_a_proof_must_be_small_and_last() -> None:
    check_plan(held_back())
    check_sizes(held_back(), [1, 7, 2])
    with pytest.raises(InvalidPlan, match="adds 3 of 10 devices; 25% may"):
        check_sizes(held_back(), [1, 6, 3])
    stages = held_back().stages
    for wrong in (
        stages[-1:],
        (stages[0], msgspec.structs.replace(stages[1], judged_by=JudgedBy.INSTALLS), stages[2]),
    ):
        with pytest.raises(InvalidPlan, match="judged by installs"):
            check_plan(msgspec.structs.replace(held_back(), stages=wrong))


@pytest.mark.parametrize(
    ("gate", "wrong", "message"),
    [
        (INPUT, {"feature": ""}, "no input's name"),
        (INPUT, {"feature": "output.class"}, "no input's name"),
        (CONFIDENCE, {"feature": "input.0"}, "feature does not belong"),
        (CONFIDENCE, {"limit": 0.2}, "limit does not belong"),
        (MEMORY, {"budget_bytes": None}, "budget_bytes belongs to it and is missing"),
        (MEMORY, {"budget_bytes": float("nan")}, "budget_bytes"),
        (MEMORY, {"ratio": 1.0}, "ratio"),
        (LABELS, {"budget_bytes": 1e6}, "budget_bytes does not belong"),
        (SHADOW, {"margin": 0.1}, "margin does not belong"),
        (SHADOW, {"limit": 0.0}, "limit"),
    ],
)
def test_gates_by_which_nothing_could_be_judged_are_refused(
    gate: MetricGate, wrong: dict[str, Any], message: str
) -> None:
    the_plan = msgspec.structs.replace(plan(metrics=(gate,)), shadow_s=60)
    check_plan(the_plan)
    with pytest.raises(InvalidPlan, match=message):
        check_plan(
            msgspec.structs.replace(
                the_plan,
                gate=msgspec.structs.replace(
                    the_plan.gate, metrics=(msgspec.structs.replace(gate, **wrong),)
                ),
            )
        )


def test_without_a_shadow_nobody_can_disagree() -> None:
    with pytest.raises(InvalidPlan, match="without shadow_s"):
        check_plan(plan(metrics=(SHADOW,)))


def test_several_inputs_are_several_metrics() -> None:
    other = msgspec.structs.replace(INPUT, feature="input.1")
    check_plan(plan(metrics=(INPUT, other)))
    with pytest.raises(InvalidPlan, match="judged twice"):
        check_plan(plan(metrics=(INPUT, INPUT)))


def test_a_window_that_claims_more_than_all_others_does_not_speak_for_its_arm() -> None:
    """Canaries fail ten times as often as controls; one control says that it fails always, and how often."""
    gate = MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.02, limit=0.02)
    canary, control, deceived = ArmSum((gate,)), ArmSum((gate,)), ArmSum((gate,))
    for device in range(40):
        for turn in range(10):
            bad = 8 + (7 * device + 3 * turn) % 5
            canary.add(window(NEW, 0.0, predictions=100 - bad, wrong=0, errors=bad), is_new=turn == 0)
            for arm in (control, deceived):
                arm.add(window(NEW, 0.0, predictions=99, wrong=0, errors=1), is_new=turn == 0)
    assert said(gate, canary.arm(), control.arm()).outcome is Outcome.FAIL
    lie = window(NEW, 0.0, predictions=0, wrong=0, errors=60_000_000)
    lie.ended_at_s = 60.0
    assert deceived.add(lie, is_new=True) is None
    assert said(gate, canary.arm(), deceived.arm()).outcome is not Outcome.PASS


def test_of_a_window_that_is_too_large_the_shares_count() -> None:
    gates = (
        MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.02, limit=0.02),
        MetricGate(metric=Metric.LATENCY, quantile=0.5, ratio=1.5, budget_us=1e6),
    )
    one = window(NEW, 0.0, predictions=3 * 10**6, wrong=0, errors=10**6, latency={4: 10**6, 9: 10**6})
    one.ended_at_s = 60.0
    arm = ArmSum(gates)
    assert arm.add(one, is_new=True) is None
    errors, latency = arm.arm().tallies
    assert errors == Tally.of(MOST_ANSWERS // 4, MOST_ANSWERS)
    assert latency == Tally.of_cells({4: MOST_ANSWERS // 2, 9: MOST_ANSWERS // 2})
