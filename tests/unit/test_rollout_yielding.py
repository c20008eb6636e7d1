"""What becomes of a rollout that loses devices to one of a higher priority."""

from __future__ import annotations

import msgspec

from fleet.protocol.deployment import DeploymentState
from fleet.rollout.events import Approve, DevicesTaken, EvidenceObserved, Pause, Promote, Resume
from fleet.rollout.state.rollout import CauseCode, Happening, Status
from tests.support.rollouts import OLD, Campaign, plan, window


def lose(campaign: Campaign, *stages: int, but: int = 0) -> list[str]:
    """Let another rollout take the devices of stages, but some of each; return them."""
    names = [d.device_id for stage in stages for d in campaign.cohort(stage)[but:]]
    campaign.do(DevicesTaken(tuple(names), 9, 5))
    return names


def test_what_was_not_ordered_is_taken_and_counts_for_nothing() -> None:
    campaign = Campaign()
    before = campaign.rollout
    assert (before.stages[0].size, before.controls) == (1, 7)
    taken = lose(campaign, 0, 1, but=1)
    assert len(taken) == 2
    after = campaign.rollout
    for device_id in taken:
        part = after.deployments.of_device(device_id)
        assert part is not None
        assert part.attempt.state is DeploymentState.CANCELED
        assert part.attempt.cause is not None
        assert part.attempt.cause.code == CauseCode.SUPERSEDED
    assert (after.controls, after.stages[0].failed, after.status) == (5, 0, Status.RUNNING)
    assert after.history[-1].kind is Happening.DEVICES_TAKEN
    assert after.history[-1].text.startswith("Rollout 9, of the higher priority 5, took 2 devices (cam-")


def test_the_stage_that_follows_is_of_who_is_left_and_the_rollout_succeeds_without_the_others() -> None:
    campaign = Campaign()
    lose(campaign, 1, 2, but=2)
    for stage in range(3):
        campaign.succeed(stage)
        campaign.wait(6)
        campaign.observe(rounds=8)
        campaign.wait(6)
    assert [stage.size for stage in campaign.rollout.stages] == [1, 2, 2]
    assert campaign.status() is Status.SUCCEEDED
    assert campaign.rollout.cause is None
    assert len(campaign.orders()) == 5


def test_devices_of_a_stage_under_way_that_wait_for_their_order_are_taken_and_the_others_stay() -> None:
    campaign = Campaign(msgspec.structs.replace(plan("all"), concurrency=3))
    lose(campaign, 0)
    stage = campaign.rollout.stages[0]
    assert (stage.size, stage.open) == (3, 3)
    campaign.succeed(0)
    assert campaign.rollout.stages[0].open == 0
    assert len(campaign.orders()) == 3


def test_a_stage_that_lost_everybody_proves_nothing_to_those_behind_it() -> None:
    campaign = Campaign()
    lose(campaign, 1)
    campaign.succeed(0)
    campaign.wait(6)
    campaign.observe(rounds=8)
    campaign.wait(6)
    assert campaign.status() is Status.PAUSED
    assert "took all its devices" in campaign.rollout.pause_reason
    campaign.do(Resume("ann"))
    assert campaign.status() is Status.PAUSED
    campaign.do(Promote("ann", "the canary was enough"))
    assert campaign.rollout.stage_index == 2


def test_stages_that_lost_everybody_at_the_end_are_passed_over() -> None:
    campaign = Campaign()
    lose(campaign, 1, 2)
    campaign.succeed(0)
    campaign.wait(6)
    campaign.observe(rounds=8)
    campaign.wait(6)
    assert campaign.status() is Status.SUCCEEDED
    assert len(campaign.orders()) == 1


def test_what_was_ordered_stays_whatever_is_asked_for() -> None:
    campaign = Campaign(msgspec.structs.replace(plan("all"), devices_per_minute=1.0))
    campaign.do(Pause("ann", ""))
    campaign.do(DevicesTaken(tuple(d.device_id for d in campaign.rollout.deployments), 9, 5))
    assert [d.attempt.state for d in campaign.cohort(0)].count(DeploymentState.CANCELED) == 7
    assert (campaign.rollout.stages[0].size, campaign.rollout.stages[0].open) == (1, 1)
    assert campaign.status() is Status.PAUSED


def test_a_rollout_that_lost_all_its_devices_did_not_succeed() -> None:
    staged = plan()
    first = msgspec.structs.replace(staged.stages[0], approval=True)
    campaign = Campaign(msgspec.structs.replace(staged, stages=(first, *staged.stages[1:])))
    assert campaign.rollout.stage_index == -1
    lose(campaign, 0, 1, 2)
    campaign.do(Approve("bob"))
    assert campaign.status() is Status.ABORTED
    assert campaign.cause().code == CauseCode.SUPERSEDED
    assert campaign.orders() == []


def test_a_device_that_was_taken_is_no_control_any_more() -> None:
    campaign = Campaign()
    [*taken] = lose(campaign, 2)
    windows = tuple((device_id, window(OLD, campaign.now_s)) for device_id in taken)
    campaign.do(EvidenceObserved(windows))
    assert campaign.rollout.stages[0].evidence.control.windows == 0
