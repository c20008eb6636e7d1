"""Devices that join a rollout later: into which stage they come, and when they are ordered."""

from __future__ import annotations

import msgspec

from fleet.protocol.deployment import DeploymentState
from fleet.rollout.events import Abort, DevicesJoined, Joiner, Promote
from fleet.rollout.plans.plan import Membership, Plan
from fleet.rollout.state.rollout import Status
from fleet.rollout.targeting import fraction
from tests.support.rollouts import Campaign, assigned, plan

SEED = 3
"""Of a `Campaign`."""
NAMES = [f"late-{i}" for i in range(40)]
EARLY = next(name for name in NAMES if fraction(SEED, name) < 0.1)
LATE = next(name for name in NAMES if fraction(SEED, name) >= 0.6)


def continuous() -> Plan:
    return msgspec.structs.replace(plan(1, "50%", "all"), membership=Membership.CONTINUOUS)


def test_a_device_of_a_stage_that_has_begun_is_ordered_and_judged_there() -> None:
    campaign = Campaign(continuous())
    canary = campaign.cohort(0)[0]
    assert assigned(campaign.do(DevicesJoined((Joiner(EARLY, 1),)))) == {EARLY: 2}
    campaign.report(canary, DeploymentState.SUCCEEDED)
    campaign.observe(rounds=3)
    campaign.wait(6.0)
    assert campaign.rollout.stage_index == 0, "the joiner has not ended"
    [_, joined] = campaign.cohort(0)
    campaign.report(joined, DeploymentState.SUCCEEDED)
    campaign.observe(rounds=3)
    campaign.wait(6.0)
    assert campaign.rollout.stage_index == 1
    assert campaign.rollout.stages[0].size == 2


def test_a_device_of_a_later_stage_waits_for_it_and_is_a_control_until_then() -> None:
    campaign = Campaign(continuous())
    controls = campaign.rollout.controls
    assert campaign.do(DevicesJoined((Joiner(LATE, 1), Joiner("new", None)))) == ()
    assert campaign.rollout.controls == controls + 1
    campaign.do(Promote("ann", "seen it"))
    assert LATE in assigned(campaign.do(Promote("ann", "seen it")))
    assert campaign.rollout.device_count == 10


def test_a_device_that_is_known_or_runs_the_version_or_comes_too_late_changes_nothing() -> None:
    campaign = Campaign(continuous())
    before = campaign.rollout
    campaign.do(DevicesJoined((Joiner("cam-1", 1), Joiner(EARLY, 2))))
    assert campaign.rollout is before
    campaign.do(Abort("ann", "no", roll_back=True))
    before = campaign.rollout
    assert before.status is Status.ROLLING_BACK
    campaign.do(DevicesJoined((Joiner(EARLY, 1),)))
    assert campaign.rollout is before


def test_a_snapshot_takes_nobody_in() -> None:
    campaign = Campaign()
    before = campaign.rollout
    campaign.do(DevicesJoined((Joiner(EARLY, 1),)))
    assert campaign.rollout is before


def test_many_join_page_by_page() -> None:
    campaign = Campaign(continuous(), devices={f"cam-{i}": 1 for i in range(250)})
    for first in range(0, 600, 60):
        names = [f"late-{i}" for i in range(first, first + 60)]
        campaign.do(DevicesJoined(tuple(Joiner(name, 1) for name in names)))
    rollout = campaign.rollout
    assert rollout.device_count == len(rollout.deployments) == 850
    for name in ("cam-7", "late-0", "late-333", "late-599"):
        part = rollout.deployments.of_device(name)
        assert part is not None
        assert (part.device_id, rollout.deployments[part.index].device_id) == (name, name)
    assert rollout.tally == tuple(map(tuple, rollout.deployments.tally(3).tolist()))
