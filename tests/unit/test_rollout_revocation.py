"""A version is revoked while it is on its way: what was ordered is taken back, what has ended stays."""

from __future__ import annotations

import msgspec
import pytest

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause, Unavailable
from fleet.rollout.events import Abort, Assign, Revoke
from fleet.rollout.plans.plan import Plan, Retries
from fleet.rollout.state.rollout import Kind, Status
from tests.support.rollout_rules import check_rollout
from tests.support.rollouts import DEVICES, Campaign, plan

WHY = "digits version 2 was revoked by ann: It leaks."


def back(campaign: Campaign) -> set[str]:
    """Return who was ordered back."""
    return {c.device_id for c in campaign.commands if isinstance(c, Assign) and c.deployment_id.endswith("b")}


def slow(per_minute: float) -> Plan:
    return msgspec.structs.replace(plan("50%", "all"), rollback_devices_per_minute=per_minute)


@pytest.mark.parametrize("state", [None, DeploymentState.DOWNLOADING, DeploymentState.TRIAL])
def test_orders_that_have_not_ended_are_taken_back_and_what_succeeded_stays(
    state: DeploymentState | None,
) -> None:
    campaign = Campaign(plan("50%", "all"))
    done, *going = campaign.cohort(0)
    campaign.report(done, DeploymentState.SUCCEEDED)
    for part in going:
        if state is not None:
            campaign.report(part, state)
    campaign.do(Revoke(WHY))
    check_rollout(campaign.rollout)
    assert campaign.status() is Status.PAUSED
    assert campaign.rollout.pause_reason == f"{WHY} It is taken back from 3 devices on the way to it."
    assert back(campaign) == {part.device_id for part in going}
    kept, *withdrawn = campaign.cohort(0)
    assert kept.restore is None
    assert {part.attempt.state for part in withdrawn} == {DeploymentState.CANCELED}
    assert all(part.attempt.ordered_s is None for part in campaign.cohort(1)), "who waited waits on"
    campaign.report(withdrawn[0], DeploymentState.SUCCEEDED)  # it comes too late
    assert campaign.cohort(0)[1].attempt.state is DeploymentState.CANCELED
    campaign.do(Revoke(WHY))
    assert len(back(campaign)) == 3, "it is revoked once"
    campaign.restore_all()
    campaign.do(Abort("ann", "revoked", roll_back=True))
    assert back(campaign) == {part.device_id for part in campaign.cohort(0)}
    campaign.restore_all()
    check_rollout(campaign.rollout)
    assert campaign.status() is Status.ROLLED_BACK


def test_ways_back_of_a_held_rollout_keep_to_the_pace_of_the_plan() -> None:
    campaign = Campaign(slow(6.0))
    campaign.do(Revoke(WHY))
    for released in (1, 2, 3, 4):
        assert len(back(campaign)) == released
        campaign.wait(10.0)
        check_rollout(campaign.rollout)
    assert campaign.status() is Status.PAUSED


def test_who_waits_for_another_try_was_sent_the_order_and_goes_back() -> None:
    retried = msgspec.structs.replace(plan("50%", "all"), retries=Retries(attempts=1, backoff_s=50.0))
    campaign = Campaign(retried)
    first = campaign.cohort(0)[0]
    campaign.report(first, DeploymentState.FAILED, cause=Cause(Unavailable.code, "no peer"))
    assert back(campaign) == set()
    campaign.do(Revoke(WHY))
    assert first.device_id in back(campaign)
    campaign.wait(1_000.0)
    check_rollout(campaign.rollout)
    assert all(not c.deployment_id.endswith("f1") for c in campaign.commands if isinstance(c, Assign))


def test_harm_that_is_found_later_takes_back_the_rest() -> None:
    campaign = Campaign(plan("50%", "all"))
    first, *_ = campaign.cohort(0)
    campaign.report(first, DeploymentState.SUCCEEDED)
    campaign.do(Revoke(WHY))
    campaign.now_s += 1.0
    campaign.observe(canary_wrong=140)
    assert campaign.status() is Status.ROLLING_BACK
    assert len(back(campaign)) == 4
    check_rollout(campaign.rollout)


def test_an_operators_rollback_leads_nobody_back_to_what_was_to_be_left() -> None:
    campaign = Campaign(plan("all", metrics=()), kind=Kind.ROLLBACK, devices=dict.fromkeys(DEVICES, 3))
    campaign.do(Revoke(WHY))
    check_rollout(campaign.rollout)
    assert (campaign.status(), campaign.rollout.pause_reason) == (Status.PAUSED, WHY)
    assert back(campaign) == set()
