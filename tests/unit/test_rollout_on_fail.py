"""What a plan asks for when there is harm, and of how many devices a stage must be proven."""

from __future__ import annotations

import msgspec

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.rollout.events import Abort, Promote, Resume
from fleet.rollout.gates.gate import Outcome
from fleet.rollout.plans.plan import OnFail, Plan
from fleet.rollout.state.rollout import Status
from tests.support.rollouts import Campaign, plan

FULL = Cause("no_space", "It is full.")


def pausing(given: Plan) -> Plan:
    return msgspec.structs.replace(given, on_fail=OnFail.PAUSE)


def test_harm_pauses_where_the_plan_says_so_and_resuming_does_not_hide_it() -> None:
    campaign = Campaign(pausing(plan()))
    campaign.succeed(0)
    campaign.observe(canary_wrong=140)
    assert campaign.status() is Status.PAUSED
    assert "70.0% of 200 on 1 canary" in campaign.rollout.pause_reason
    assert not [order for order in campaign.orders() if order[1].endswith("b")]
    campaign.do(Resume("ann"))
    assert campaign.status() is Status.PAUSED
    campaign.do(Abort("ann", reason="harm", roll_back=True))
    campaign.restore_all()
    assert campaign.status() is Status.ROLLED_BACK


def test_failed_installs_pause_too_and_an_override_lets_the_next_stage_begin() -> None:
    campaign = Campaign(pausing(plan()))
    campaign.report(campaign.cohort(0)[0], DeploymentState.FAILED, cause=FULL)
    assert campaign.status() is Status.PAUSED
    campaign.do(Promote("ann", reason="its disk is known to be full"))
    assert (campaign.status(), campaign.rollout.stage_index) == (Status.RUNNING, 1)
    campaign.report(campaign.cohort(1)[0], DeploymentState.FAILED, cause=FULL)
    assert campaign.status() is Status.PAUSED
    assert campaign.rollout.pause_reason.startswith("Stage 2:")


def test_a_stage_passes_only_when_enough_of_its_devices_run_the_version() -> None:
    given = plan("50%", "all", maximum_failed_share=0.5)
    stages = (msgspec.structs.replace(given.stages[0], minimum_devices=4), *given.stages[1:])
    campaign = Campaign(msgspec.structs.replace(given, stages=stages))
    first, *others = campaign.cohort(0)
    campaign.report(first, DeploymentState.FAILED, cause=FULL)
    for deployment in others:
        campaign.report(deployment, DeploymentState.SUCCEEDED)
    campaign.observe(rounds=5)
    campaign.wait(30.0)
    assert campaign.verdict().outcome is Outcome.PASS
    assert (campaign.status(), campaign.rollout.stage_index) == (Status.RUNNING, 0)
    campaign.wait(60.0)
    assert campaign.status() is Status.PAUSED
    assert campaign.rollout.pause_reason.endswith("Only 3 of at least 4 devices run the version.")
