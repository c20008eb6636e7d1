"""How fast orders are given, how many at once, and what is tried again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.rollout.events import Abort, Command, Pause, Resume, Supersede
from fleet.rollout.plans.plan import Plan, Retries
from fleet.rollout.state.rollout import Status
from tests.support.rollouts import Campaign, assigned, plan

MANY = {f"cam-{i}": 1 for i in range(30)}
TOO_LATE = Cause("delivery_timed_out", "The bytes did not arrive.")


def paced(**fields: Any) -> Plan:
    """Return a plan of one stage with these limits, in which every device may fail but one."""
    return msgspec.structs.replace(plan("all", maximum_failed_share=0.99), **fields)


def ids(commands: Iterable[Command]) -> list[str]:
    return list(assigned(commands))


def test_orders_are_given_at_the_rate_and_none_twice() -> None:
    campaign = Campaign(paced(devices_per_minute=60.0), devices=MANY)
    assert len(campaign.orders()) == 10, "what ten seconds bring is given at once"
    for second in range(1, 21):
        assert len(ids(campaign.wait(1.0))) == 1
        assert campaign.rollout.stages[0].open == 30
        assert len(campaign.orders()) == 10 + second
    assert campaign.wait(60.0) == ()
    assert {name for name, _, _ in campaign.orders()} == set(MANY)


def test_a_clock_that_was_ahead_for_a_moment_is_not_waited_for() -> None:
    limits = paced(devices_per_minute=60.0, rollback_devices_per_minute=60.0, deployment_timeout_s=1e6)
    campaign, ahead_s = Campaign(limits, devices=MANY), 1e5
    campaign.now_s += ahead_s
    assert len(ids(campaign.wait(0.0))) == 10
    campaign.now_s -= ahead_s
    assert campaign.wait(0.0) == ()
    assert len(ids(campaign.wait(2.0))) == 2
    campaign.now_s += ahead_s
    assert len(assigned(campaign.do(Abort("ann", "no", roll_back=True)))) == 10
    campaign.now_s -= ahead_s
    assert campaign.wait(0.0) == ()
    assert len(ids(campaign.wait(2.0))) == 2


def test_who_waits_for_its_order_is_a_control_and_not_heard_of_until_it_runs_the_version() -> None:
    campaign = Campaign(paced(devices_per_minute=60.0), devices=MANY)
    campaign.succeed(0)
    campaign.observe()
    evidence = campaign.rollout.stages[0].evidence
    assert (evidence.canary.devices, evidence.control.devices) == (10, 20)
    assert campaign.rollout.stages[0].heard == 10
    campaign.wait(10.0)
    campaign.wait(10.0)
    campaign.succeed(0)
    assert campaign.rollout.stages[0].heard == 10
    campaign.observe()
    campaign.observe()
    assert campaign.rollout.stages[0].heard == 30
    assert campaign.rollout.stages[0].evidence.canary.devices == 30


def test_a_slow_rate_gives_single_orders() -> None:
    campaign = Campaign(paced(devices_per_minute=1.0), devices=MANY)
    assert len(campaign.orders()) == 1
    assert campaign.wait(59.0) == ()
    assert len(ids(campaign.wait(1.0))) == 1


def test_no_more_than_so_many_orders_are_open() -> None:
    campaign = Campaign(paced(concurrency=4), devices=MANY)
    assert len(campaign.orders()) == 4
    assert campaign.wait(1.0) == ()
    first, second = campaign.rollout.deployments[0], campaign.rollout.deployments[1]
    campaign.report(first, DeploymentState.TRIAL)
    assert len(campaign.orders()) == 4
    campaign.report(first, DeploymentState.SUCCEEDED)
    campaign.report(second, DeploymentState.ROLLED_BACK, cause=Cause("trial_failed", "It failed."))
    forward = [deployment_id for _, deployment_id, _ in campaign.orders() if deployment_id.endswith("f")]
    assert len(forward) == 6


def test_a_pause_holds_what_was_not_ordered() -> None:
    campaign = Campaign(paced(devices_per_minute=60.0), devices=MANY)
    campaign.do(Pause("ann", "lunch"))
    assert campaign.wait(10.0) == ()
    campaign.do(Resume("ann"))
    assert len(campaign.orders()) == 20


def test_the_time_of_a_deployment_runs_from_its_own_order() -> None:
    campaign = Campaign(paced(devices_per_minute=6.0), devices={"cam-1": 1, "cam-2": 1})
    campaign.wait(10.0)
    campaign.wait(90.0)
    states = [part.attempt.state for part in campaign.rollout.deployments]
    assert states == [DeploymentState.TIMED_OUT, DeploymentState.QUEUED]
    campaign.wait(10.0)
    assert campaign.rollout.stages[0].failed == 2


@pytest.mark.parametrize(
    ("state", "cause"),
    [(DeploymentState.TIMED_OUT, None), (DeploymentState.FAILED, TOO_LATE)],
    ids=["timed out", "lost on its way"],
)
def test_what_was_lost_on_its_way_is_tried_again_after_longer_and_longer(
    state: DeploymentState, cause: Cause | None
) -> None:
    campaign = Campaign(paced(retries=Retries(attempts=2, backoff_s=30.0)), devices=MANY)
    part = campaign.rollout.deployments[0]
    names = ["r7-0f", "r7-0f1", "r7-0f2"]
    for tries, wait_s in enumerate((30.0, 60.0)):
        before = campaign.report(part, state, cause=cause)
        assert assigned(before) == {}
        waiting = campaign.rollout.deployments[0]
        assert (waiting.attempt.deployment_id, waiting.attempt.ordered_s) == (names[tries + 1], None)
        assert campaign.rollout.stages[0].open == 30
        assert ids(campaign.wait(wait_s - 2.0)) == []
        assert ids(campaign.wait(4.0)) == [part.device_id]
    assert assigned(campaign.report(part, state, cause=cause)) == {part.device_id: 1}, "now it goes back"
    assert campaign.rollout.stages[0].failed == 1


def test_a_report_of_an_earlier_try_changes_nothing() -> None:
    campaign = Campaign(paced(retries=Retries(attempts=1, backoff_s=0.0)), devices=MANY)
    part = campaign.rollout.deployments[0]
    old = part.attempt
    campaign.report(part, DeploymentState.FAILED, cause=TOO_LATE)
    campaign.wait(2.0)
    tried = campaign.rollout.deployments[0]
    assert tried.attempt.is_open
    assert tried.attempt.deployment_id != old.deployment_id
    before = campaign.rollout
    campaign.do(campaign.report_of(part, DeploymentState.SUCCEEDED))
    assert campaign.rollout is before


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        (DeploymentState.ROLLED_BACK, TOO_LATE),
        (DeploymentState.REJECTED, TOO_LATE),
        (DeploymentState.FAILED, Cause("no_space", "The disk is full.")),
    ],
    ids=["rolled back", "rejected", "no space"],
)
def test_a_device_that_judged_the_version_is_not_asked_again(state: DeploymentState, cause: Cause) -> None:
    campaign = Campaign(paced(retries=Retries(attempts=5)), devices=MANY)
    part = campaign.rollout.deployments[0]
    assert assigned(campaign.report(part, state, cause=cause)) == {part.device_id: 1}
    assert campaign.rollout.stages[0].failed == 1


def test_a_rollback_goes_in_waves_and_ends_when_all_are_back() -> None:
    campaign = Campaign(paced(rollback_devices_per_minute=60.0), devices=MANY)
    campaign.succeed(0)
    back = assigned(campaign.do(Abort("ann", "no", roll_back=True)))
    assert len(back) == 10
    assert campaign.rollout.open_restores == 30
    for _ in range(20):
        campaign.restore_all()
        assert campaign.status() is Status.ROLLING_BACK
        back |= assigned(campaign.wait(1.0))
    assert back == dict.fromkeys(MANY, 1)
    campaign.restore_all()
    assert campaign.status() is Status.ROLLED_BACK


def test_who_waits_for_another_try_goes_back_and_who_was_never_reached_does_not() -> None:
    limits = paced(devices_per_minute=60.0, retries=Retries(attempts=1, backoff_s=1000.0))
    campaign = Campaign(limits, devices=MANY)
    part = campaign.rollout.deployments[0]
    campaign.report(part, DeploymentState.FAILED, cause=TOO_LATE)
    back = assigned(campaign.do(Abort("ann", "no", roll_back=True)))
    assert set(back) == {part.device_id for part in campaign.rollout.deployments if part.index < 10}
    campaign.restore_all()
    assert campaign.status() is Status.ROLLED_BACK


def test_what_is_superseded_sends_nothing_more() -> None:
    campaign = Campaign(paced(rollback_devices_per_minute=60.0), devices=MANY)
    campaign.succeed(0)
    campaign.do(Abort("ann", "no", roll_back=True))
    campaign.do(Supersede("ann", "another order follows"))
    assert campaign.status() is Status.ABORTED
    assert all(part.has_ended for part in campaign.rollout.deployments)
    assert campaign.wait(100.0) == ()
