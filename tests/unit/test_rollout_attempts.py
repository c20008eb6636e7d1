"""Deployments: reports, failures, timeouts and the way back."""

from __future__ import annotations

import msgspec
import pytest

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause, Conflict
from fleet.rollout.events import Assign, DeploymentReported, Promote, Start, WasAway
from fleet.rollout.plans.plan import rollback_plan
from fleet.rollout.state.rollout import CauseCode, Kind, Status
from tests.support.rollouts import DEVICES, Campaign, assigned, plan

CAUSE = Cause("self_test_failed", "The golden inputs gave other outputs.")


def test_one_failed_install_above_the_share_rolls_back_at_once() -> None:
    campaign = Campaign(plan("50%", "all"))
    first, second, *_ = campaign.cohort(0)
    campaign.report(first, DeploymentState.SUCCEEDED)
    campaign.report(second, DeploymentState.FAILED, cause=CAUSE)
    assert campaign.status() is Status.ROLLING_BACK
    assert campaign.cause().code == CauseCode.INSTALLS_FAILED.value
    ids = [order[1] for order in campaign.orders()]
    assert len(ids) == len(set(ids)) == 8


@pytest.mark.parametrize(
    "state",
    [
        DeploymentState.FAILED,
        DeploymentState.REJECTED,
        DeploymentState.ROLLED_BACK,
        DeploymentState.CANCELED,
        DeploymentState.REMOVED,
        DeploymentState.TIMED_OUT,
    ],
)
def test_every_end_but_success_is_a_failed_install_with_a_cause(state: DeploymentState) -> None:
    campaign = Campaign()
    canary = campaign.cohort(0)[0]
    campaign.report(canary, state)
    assert campaign.status() is Status.ROLLING_BACK
    assert campaign.rollout.deployments[canary.index].attempt.cause is not None


def test_a_failure_within_tolerance_is_ordered_back_once_and_not_retried() -> None:
    campaign = Campaign(plan("50%", "all", maximum_failed_share=0.25))
    unlucky, *others = campaign.cohort(0)
    campaign.report(unlucky, DeploymentState.REJECTED, cause=CAUSE)
    assert campaign.status() is Status.RUNNING
    assert campaign.orders()[-1] == (unlucky.device_id, f"r7-{unlucky.index}b", 1)
    for deployment in others:
        campaign.report(deployment, DeploymentState.SUCCEEDED)
    campaign.report(unlucky, DeploymentState.SUCCEEDED, back=True)
    campaign.observe(rounds=4)
    campaign.succeed(1)
    campaign.observe(rounds=4)
    assert campaign.status() is Status.SUCCEEDED
    assert campaign.cause().code == CauseCode.WITHIN_TOLERANCE.value
    assert unlucky.device_id in campaign.cause().detail
    assert [o[1] for o in campaign.orders()].count(unlucky.attempt.deployment_id) == 1


def test_a_rollout_waits_for_tolerated_failures_to_be_back_before_it_succeeds() -> None:
    campaign = Campaign(plan("all", maximum_failed_share=0.25))
    unlucky, *others = campaign.cohort(0)
    campaign.report(unlucky, DeploymentState.FAILED, cause=CAUSE)
    for deployment in others:
        campaign.report(deployment, DeploymentState.SUCCEEDED)
    campaign.observe(rounds=6)
    assert campaign.rollout.stages[0].ended_s is not None
    assert campaign.status() is Status.RUNNING
    with pytest.raises(Conflict):
        campaign.do(Promote("ann", "hurry"))
    campaign.report(unlucky, DeploymentState.SUCCEEDED, back=True)
    assert campaign.status() is Status.SUCCEEDED


def test_a_silent_device_times_out_and_late_reports_do_no_harm() -> None:
    campaign = Campaign()
    canary = campaign.cohort(0)[0]
    campaign.report(canary, DeploymentState.DOWNLOADING)
    campaign.wait(99.0)
    assert campaign.status() is Status.RUNNING
    campaign.wait(1.0)
    assert campaign.rollout.deployments[canary.index].attempt.state is DeploymentState.TIMED_OUT
    assert campaign.status() is Status.ROLLING_BACK
    before = campaign.rollout
    campaign.report(canary, DeploymentState.SUCCEEDED)
    assert campaign.rollout is before


def test_a_shadow_is_ordered_on_the_way_forward_alone_and_has_time_of_its_own() -> None:
    campaign = Campaign(msgspec.structs.replace(plan(), shadow_s=300))
    canary = campaign.cohort(0)[0]
    assert [c.shadow_s for c in campaign.commands if isinstance(c, Assign)] == [300]
    campaign.report(canary, DeploymentState.SHADOW)
    campaign.wait(399.0)
    assert campaign.status() is Status.RUNNING
    campaign.wait(1.0)
    assert campaign.rollout.deployments[canary.index].attempt.state is DeploymentState.TIMED_OUT
    assert [c.shadow_s for c in campaign.commands if isinstance(c, Assign)] == [300, 0]
    campaign.wait(100.0)  # the way back has no more time than without a shadow
    assert campaign.status() is Status.FAILED


def test_a_device_that_does_not_come_back_makes_the_rollout_failed_and_is_named() -> None:
    campaign = Campaign()
    canary = campaign.cohort(0)[0]
    campaign.succeed(0)
    campaign.observe(canary_wrong=140)
    campaign.wait(100.0)
    assert campaign.status() is Status.FAILED
    assert campaign.cause().code == CauseCode.RESTORE_FAILED.value
    assert f"{canary.device_id} (TIMED_OUT)" in campaign.cause().detail
    assert "label errors" in campaign.cause().detail


def test_a_removal_may_be_reported_under_the_id_of_the_way_forward() -> None:
    campaign = Campaign(devices=dict.fromkeys(DEVICES))
    canary = campaign.cohort(0)[0]
    campaign.succeed(0)
    campaign.observe(canary_wrong=140)
    campaign.report(canary, DeploymentState.REMOVED)
    assert campaign.status() is Status.ROLLED_BACK
    assert campaign.rollout.deployments[canary.index].attempt.state is DeploymentState.SUCCEEDED


def test_a_removal_answered_with_success_is_not_a_removal() -> None:
    campaign = Campaign(devices=dict.fromkeys(DEVICES))
    canary = campaign.cohort(0)[0]
    campaign.report(canary, DeploymentState.FAILED, cause=CAUSE)
    campaign.report(canary, DeploymentState.SUCCEEDED, back=True)
    assert campaign.status() is Status.FAILED


def test_reports_move_forward_only() -> None:
    campaign = Campaign()
    canary = campaign.cohort(0)[0]
    campaign.report(canary, DeploymentState.STAGED)
    campaign.report(canary, DeploymentState.DOWNLOADING)
    assert campaign.rollout.deployments[canary.index].attempt.state is DeploymentState.STAGED
    campaign.report(canary, DeploymentState.SUCCEEDED)
    before = campaign.rollout
    for state in DeploymentState:
        campaign.report(canary, state)
    assert campaign.rollout is before


@pytest.mark.parametrize(
    "deployment_id", ["r7-0b", "r7-1f", "r8-0f", "r7-99f", "r7-0", "r7--1f", "x", "r7-0f\n", "r7-٠f"]
)
def test_a_report_on_what_was_not_ordered_changes_nothing(deployment_id: str) -> None:
    campaign = Campaign()
    canary = campaign.cohort(0)[0]
    before = campaign.rollout
    for state in DeploymentState:
        campaign.do(DeploymentReported(canary.device_id, deployment_id, state, 0.0))
    assert campaign.rollout is before


def test_a_device_cannot_report_for_another() -> None:
    campaign = Campaign()
    canary, other = campaign.rollout.deployments[0], campaign.rollout.deployments[1]
    before = campaign.rollout
    campaign.do(
        DeploymentReported(other.device_id, canary.attempt.deployment_id, DeploymentState.FAILED, 0.0)
    )
    assert campaign.rollout is before


def test_a_rollback_is_one_stage_judged_on_installs() -> None:
    campaign = Campaign(rollback_plan(), kind=Kind.ROLLBACK, version=1, devices=dict.fromkeys(DEVICES, 2))
    assert assigned(campaign.commands) == dict.fromkeys(DEVICES, 1)
    campaign.succeed(0)
    assert campaign.status() is Status.SUCCEEDED


def test_a_rollback_is_not_rolled_back_when_a_device_does_not_follow() -> None:
    campaign = Campaign(rollback_plan(), kind=Kind.ROLLBACK, version=1, devices=dict.fromkeys(DEVICES, 2))
    unlucky, *others = campaign.cohort(0)
    campaign.report(unlucky, DeploymentState.FAILED, cause=CAUSE)
    assert campaign.status() is Status.RUNNING
    for deployment in others:
        campaign.report(deployment, DeploymentState.SUCCEEDED)
    assert campaign.status() is Status.FAILED
    assert unlucky.device_id in campaign.cause().detail
    assert [order for order in campaign.orders() if order[1].endswith("b")] == []


def test_the_time_that_the_hub_was_away_counts_for_no_deadline() -> None:
    campaign = Campaign(plan("all", maximum_bake_s=60.0))
    campaign.now_s += 1e6
    campaign.do(WasAway(1e6))
    assert campaign.status() is Status.RUNNING
    campaign.wait(99.0)
    assert campaign.status() is Status.RUNNING
    campaign.wait(1.0)
    assert campaign.status() is Status.ROLLING_BACK
    campaign.now_s += 1e6
    campaign.do(WasAway(1e6))
    assert campaign.status() is Status.ROLLING_BACK
    campaign.wait(100.0)
    assert campaign.status() is Status.FAILED


def test_an_absence_that_is_told_of_again_is_forgiven_once_and_grows() -> None:
    campaign = Campaign(plan("all"))
    campaign.now_s += 60.0
    campaign.do(WasAway(60.0, since_s=1000.0))
    forgiven = campaign.rollout
    campaign.do(WasAway(60.0, since_s=1000.0))
    assert campaign.rollout is forgiven
    campaign.now_s += 20.0
    campaign.do(WasAway(80.0, since_s=1000.0))
    assert {d.due_s for d in campaign.rollout.deployments} == {1000.0 + 100.0 + 80.0}
    campaign.do(WasAway(10.0, since_s=1070.0))
    assert {d.due_s for d in campaign.rollout.deployments} == {1080.0 + 100.0}


def test_an_absence_gives_nobody_more_than_all_of_its_time_anew() -> None:
    campaign = Campaign(plan("all", minimum_bake_s=30.0))
    campaign.do(WasAway(1e6, since_s=1000.0 - 1e6))
    assert {d.due_s for d in campaign.rollout.deployments} == {1000.0 + 100.0}
    assert campaign.rollout.stages[0].excused_s == 0.0
    campaign.succeed(0)
    campaign.wait(10.0)
    campaign.do(WasAway(1e6, since_s=10.0))
    assert campaign.rollout.stages[0].bake_started_s == campaign.now_s


def test_what_a_device_goes_back_to_is_what_it_ran_at_the_start() -> None:
    campaign = Campaign(plan("all"), devices=dict.fromkeys(DEVICES), started=False)
    running: dict[str, int | None] = {**dict.fromkeys(DEVICES, 1), "cam-3": 2}
    campaign.do(Start("ann", running))
    assert "cam-3" not in {deployment.device_id for deployment in campaign.rollout.deployments}
    assert {deployment.previous_version for deployment in campaign.rollout.deployments} == {1}
    assert len(campaign.orders()) == len(DEVICES) - 1


def test_each_way_back_has_its_own_deadline() -> None:
    campaign = Campaign(plan("all", maximum_failed_share=0.5, maximum_bake_s=1e6))
    first, second, *others = campaign.cohort(0)
    for deployment in others:
        campaign.report(deployment, DeploymentState.SUCCEEDED)
    campaign.report(first, DeploymentState.FAILED, cause=CAUSE)
    campaign.wait(40.0)
    campaign.report(second, DeploymentState.FAILED, cause=CAUSE)
    ends = []
    for seconds in (59.0, 1.0, 39.0, 1.0):
        campaign.wait(seconds)
        restores = [campaign.rollout.deployments[d.index].restore for d in (first, second)]
        ends.append([r is not None and r.state is DeploymentState.TIMED_OUT for r in restores])
    assert ends == [[False, False], [True, False], [True, False], [True, True]]
