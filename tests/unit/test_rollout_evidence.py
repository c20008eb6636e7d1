"""Which telemetry counts, for which arm, and how much."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from fleet.drift.features import CONFIDENCE_EDGES, OUTPUT_CONFIDENCE
from fleet.drift.profile import FeatureCounts
from fleet.protocol.assignment import CLOCK_TOLERANCE_S
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.latency import bucket
from fleet.protocol.records import ShadowReport, TelemetryWindow
from fleet.rollout.engine import create
from fleet.rollout.events import DeploymentReported, EvidenceObserved, Start
from fleet.rollout.gates.evidence import Arm, Tally
from fleet.rollout.gates.sums import ArmSum
from fleet.rollout.gates.windows import unusable
from fleet.rollout.plans.plan import Metric, MetricGate
from fleet.rollout.state.columns import Deployment
from fleet.rollout.state.rollout import Kind, Status
from tests.support.rollouts import DEVICES, NEW, OLD, Campaign, plan, tally, window


def cells(*values: float) -> list[int]:
    counts = [0] * (len(CONFIDENCE_EDGES) + 1)
    for value in values:
        counts[sum(edge <= value for edge in CONFIDENCE_EDGES)] += 1
    return counts


def test_each_metric_counts_what_its_table_says() -> None:
    one = window(
        NEW,
        0.0,
        predictions=10,
        wrong=3,
        errors=2,
        confidence_cells=cells(0.1, 0.34, 0.35, 0.36, 0.9),
        latency={bucket(100.0): 5, bucket(5000.0): 4},
    )
    one.profile[OUTPUT_CONFIDENCE].missing = 2
    gates = [
        (MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.1, limit=0.1), Tally.of(2, 12)),
        (MetricGate(metric=Metric.LABEL_ERRORS, margin=0.1, limit=0.1), Tally.of(3, 10)),
        (MetricGate(metric=Metric.UNSURE, margin=0.1, limit=0.1, threshold=0.35), Tally.of(4, 7)),
        (MetricGate(metric=Metric.SLOW, margin=0.1, limit=0.1, budget_us=1000.0), Tally.of(4, 9)),
    ]
    for gate, expected in gates:
        assert tally(one, gate) == expected, gate.metric


def test_a_window_without_confidences_says_nothing_about_them() -> None:
    gate = MetricGate(metric=Metric.UNSURE, margin=0.1, limit=0.1, threshold=0.5)
    assert tally(window(NEW, 0.0), gate) == Tally(0, 0)


def _claim_millennia(window: TelemetryWindow) -> None:
    window.ended_at_s, window.predictions = 2.0**39, 2**46


CONTRADICTIONS: dict[str, Callable[[TelemetryWindow], None]] = {
    "more correct than labelled": lambda w: setattr(w, "correct", w.labelled + 1),
    "backwards": lambda w: setattr(w, "ended_at_s", w.started_at_s - 1.0),
    "more durations than requests": lambda w: w.latency.update({3: 201}),
    "more labels than there is time for": lambda w: setattr(w, "labelled", 2**53),
    "more requests than any time is long enough for": _claim_millennia,
    "too few cells": lambda w: w.profile.update({OUTPUT_CONFIDENCE: FeatureCounts(cells=[1])}),
    "no cells": lambda w: w.profile.update({OUTPUT_CONFIDENCE: FeatureCounts(cells=[])}),
    "more confidences than answers": lambda w: w.profile.update(
        {OUTPUT_CONFIDENCE: FeatureCounts(cells=[10] * 22)}
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_window_that_contradicts_itself_is_not_counted(name: str) -> None:
    metrics = plan().gate.metrics
    good = window(NEW, 0.0)
    assert unusable(good) is None
    CONTRADICTIONS[name](good)
    assert unusable(good)
    arm = ArmSum(metrics)
    assert arm.add(good, is_new=True) == unusable(good)
    assert arm.arm() == Arm(0, 0, 1, (Tally(),))


def test_labels_may_come_later_than_their_answers() -> None:
    late = window(NEW, 0.0)
    late.predictions = 0
    assert unusable(late) is None
    assert tally(late, plan().gate.metrics[0]) == Tally.of(6, 200)


def test_canaries_and_controls_are_told_apart_by_what_they_were_sent_and_run() -> None:
    campaign = Campaign()
    campaign.observe()
    stage = campaign.rollout.stages[0]
    assert (stage.evidence.canary.devices, stage.evidence.control.devices) == (0, 7)
    campaign.succeed(0)
    campaign.observe(rounds=1, canary_wrong=7)
    evidence = campaign.rollout.stages[0].evidence
    assert evidence.canary == Arm(1, 1, 0, (Tally.of(7, 200),))
    assert evidence.control == Arm(7, 14, 0, (Tally(84, 2800, 14 * 36.0, 14 * 1200.0, 14 * 40_000.0),))


def test_windows_that_are_evidence_of_nothing_change_nothing() -> None:
    campaign = Campaign()
    canary, control = campaign.cohort(0)[0], campaign.cohort(1)[0]
    now = campaign.now_s
    other_model = window(NEW, now)
    other_model.model = "faces"
    nothing = [
        (canary.device_id, window(NEW, now)),  # it has not reported that it runs the version
        (canary.device_id, window(OLD, now)),  # it was sent the version: no control any more
        (control.device_id, window(NEW, now)),  # it was not sent the version: no canary
        ("stranger", window(NEW, now)),
        (control.device_id, other_model),
        (control.device_id, window(OLD, now - CLOCK_TOLERANCE_S - 2.1)),  # an old spool
        (control.device_id, window(OLD, now + CLOCK_TOLERANCE_S)),  # perhaps one, by a clock that is ahead
    ]
    before = campaign.rollout
    campaign.do(EvidenceObserved(tuple(nothing)))
    assert campaign.rollout is before


def test_a_canary_counts_from_its_trial_on_by_its_own_clock() -> None:
    campaign = Campaign()
    canary = campaign.cohort(0)[0]
    device_clock_s = 50.0  # far behind the hub's
    campaign.do(
        DeploymentReported(
            canary.device_id, canary.attempt.deployment_id, DeploymentState.TRIAL, device_clock_s
        )
    )
    for started_s, counted in [(49.0, 0), (50.0, 1), (60.0, 2)]:
        campaign.do(EvidenceObserved(((canary.device_id, window(NEW, started_s)),)))
        assert campaign.rollout.stages[0].evidence.canary.windows == counted


def test_a_canary_that_was_sent_back_is_no_evidence_any_more() -> None:
    campaign = Campaign(plan("50%", "all", maximum_failed_share=0.25))
    first, *_ = campaign.cohort(0)
    campaign.report(first, DeploymentState.TRIAL)
    campaign.do(EvidenceObserved(((first.device_id, window(NEW, campaign.now_s)),)))
    campaign.report(first, DeploymentState.ROLLED_BACK)
    campaign.do(EvidenceObserved(((first.device_id, window(NEW, campaign.now_s)),)))
    assert campaign.rollout.stages[0].evidence.canary.windows == 1


def test_devices_without_a_version_are_no_controls() -> None:
    mixed: dict[str, int | None] = {d: (1 if i % 2 else None) for i, d in enumerate(DEVICES)}
    campaign = Campaign(devices=mixed)
    waiting = [d for d in campaign.rollout.deployments if d.stage > 0]
    assert campaign.rollout.controls == sum(d.previous_version is not None for d in waiting)
    for deployment in waiting:
        campaign.do(EvidenceObserved(((deployment.device_id, window(OLD, campaign.now_s)),)))
    assert campaign.rollout.stages[0].evidence.control.windows == campaign.rollout.controls


def test_each_stage_is_judged_on_its_own_evidence() -> None:
    campaign = Campaign()
    campaign.succeed(0)
    campaign.observe(rounds=3)
    assert campaign.rollout.stage_index == 1
    assert campaign.rollout.stages[1].evidence.canary.tallies == (Tally(),)
    campaign.observe()
    assert campaign.rollout.stages[1].evidence.canary.devices == 1  # the first canary goes on counting


def test_arms_add_up() -> None:
    left, right = Arm(1, 2, 3, (Tally(1, 2),)), Arm(10, 20, 30, (Tally(5, 6),))
    assert left.plus(right) == Arm(11, 22, 33, (Tally(6, 8),))
    assert msgspec.json.decode(msgspec.json.encode(left), type=Arm) == left


def test_windows_count_for_the_class_of_their_device() -> None:
    strata = {device_id: f"hardware=pi{3 + i % 2}" for i, device_id in enumerate(sorted(DEVICES))}
    campaign = Campaign(started=False)
    campaign.rollout = create(
        number=7,
        kind=Kind.UPDATE,
        model="digits",
        version=2,
        manifest_sha256=NEW,
        plan=plan("50%", "all"),
        seed=3,
        devices=DEVICES,
        now_s=campaign.now_s,
        strata=strata,
    )
    campaign.do(Start("ann"))
    campaign.succeed(0)
    campaign.observe(canary_wrong=7)
    evidence = campaign.rollout.stages[0].evidence
    assert evidence.canary.tallies[0].total == 4 * 200
    for arm in (evidence.canary, evidence.control):
        assert sorted(arm.strata) == ["hardware=pi3", "hardware=pi4"]
        assert sum(part.devices for part in arm.strata.values()) == arm.devices == 4
        assert sum(part.tallies[0].bad for part in arm.strata.values()) == arm.tallies[0].bad


def shadow_of(deployment: Deployment, **other: object) -> tuple[str, ShadowReport]:
    report = ShadowReport(
        started_at_s=0.0,
        ended_at_s=60.0,
        deployment_id=deployment.attempt.deployment_id,
        model="digits",
        active_version=1,
        version=2,
        manifest_sha256=NEW,
        compared=1000,
        disagreed=400,
    )
    return deployment.device_id, msgspec.structs.replace(report, **other)


def test_devices_that_disagree_in_the_shadow_stop_a_version_before_it_answers() -> None:
    gate = MetricGate(metric=Metric.SHADOW_DISAGREEMENT, limit=0.1)
    campaign = Campaign(msgspec.structs.replace(plan("50%", "all", metrics=(gate,)), shadow_s=60))
    first, second = campaign.cohort(0)[:2]
    waits = campaign.cohort(1)[0]
    nothing = (
        shadow_of(first, deployment_id="r7-999"),
        shadow_of(first, manifest_sha256=OLD),
        shadow_of(first, disagreed=1001),  # of 1,000
        shadow_of(waits, deployment_id=first.attempt.deployment_id),
        ("stranger", shadow_of(first)[1]),
    )
    before = campaign.rollout
    campaign.do(EvidenceObserved(shadows=nothing))
    assert campaign.rollout is before
    campaign.do(EvidenceObserved(shadows=(shadow_of(first), shadow_of(second, disagreed=350))))
    assert campaign.status() is Status.ROLLING_BACK
    assert "shadow disagreement 37.5% of 2,000" in campaign.cause().detail
    assert all(d.attempt.state is not DeploymentState.SUCCEEDED for d in campaign.rollout.deployments)


def test_shadows_are_not_looked_at_where_they_are_not_judged() -> None:
    campaign = Campaign()
    before = campaign.rollout
    campaign.do(EvidenceObserved(shadows=(shadow_of(campaign.cohort(0)[0]),)))
    assert campaign.rollout is before
