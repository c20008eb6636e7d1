"""Devices that join a rollout later: into which stage they come, and when they are ordered."""

from __future__ import annotations

import msgspec
import pytest

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Conflict
from fleet.rollout.events import Abort, DevicesJoined, DevicesTaken, Joiner, Pause, Promote, Revoke
from fleet.rollout.explanation.explanation import explain
from fleet.rollout.joined import TOLD_EVERY_S
from fleet.rollout.plans.plan import Membership, Plan
from fleet.rollout.state.rollout import Happening, Status
from fleet.rollout.targeting import fraction
from tests.support.rollouts import Campaign, assigned, plan

SEED = 3
"""Of a `Campaign`."""
NAMES = [f"late-{i}" for i in range(40)]
EARLY = next(name for name in NAMES if fraction(SEED, name) < 0.1)
LATE = next(name for name in NAMES if fraction(SEED, name) >= 0.6)


def continuous(*devices: int | str) -> Plan:
    return msgspec.structs.replace(plan(*devices or ("10%", "50%", "all")), membership=Membership.CONTINUOUS)


def patient(*devices: int | str) -> Plan:
    """One of which no deployment runs out of time."""
    return msgspec.structs.replace(continuous(*devices), deployment_timeout_s=1e7)


def told(campaign: Campaign) -> list[str]:
    """What the history says of devices that joined."""
    return [entry.text for entry in campaign.rollout.history if entry.kind is Happening.DEVICES_JOINED]


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
    assert assigned(campaign.do(DevicesJoined((Joiner(LATE, 1), Joiner("new", None))))) == {}
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


def test_nobody_joins_a_version_that_was_revoked() -> None:
    campaign = Campaign(continuous("50%", "all"))
    campaign.do(Revoke("digits version 2 was revoked by ann: It leaks."))
    before = campaign.rollout
    campaign.do(DevicesJoined((Joiner("new-1", 1),)))
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


def test_a_stage_of_a_count_takes_nobody_in_while_it_has_its_count() -> None:
    campaign = Campaign(continuous(1, "50%", "all"))
    assert assigned(campaign.do(DevicesJoined((Joiner(EARLY, 1), Joiner(LATE, 1))))) == {}
    assert campaign.rollout.stage_sizes == [1, 4, 5]
    part = campaign.rollout.deployments.of_device(EARLY)
    assert part is not None
    assert part.stage == 1, "the next stage covers its lot"


def test_the_place_of_a_device_that_another_rollout_took_is_free() -> None:
    campaign = Campaign(continuous(1, 3, "all"))
    taken = campaign.cohort(1)[0].device_id
    campaign.do(DevicesTaken((taken,), rollout=8, priority=1))
    campaign.do(DevicesJoined((Joiner(LATE, 1), Joiner(EARLY, 1))))
    stages = {part.device_id: part.stage for part in campaign.rollout.deployments}
    assert (stages[LATE], stages[EARLY]) == (1, 2)


def test_nobody_joins_a_plan_that_ends_with_a_count() -> None:
    campaign = Campaign(continuous(1, 8))
    before = campaign.rollout
    campaign.do(DevicesJoined((Joiner(EARLY, 1),)))
    assert campaign.rollout is before


def test_who_joined_stands_in_the_history_and_not_too_often() -> None:
    campaign = Campaign(patient(1, "50%", "all"))
    campaign.do(DevicesJoined((Joiner(EARLY, 1), Joiner(LATE, 1), Joiner("new", None))))
    [first] = told(campaign)
    assert first.startswith("3 devices joined: ")
    assert first.endswith("; the rollout has 11 devices now.")
    for number in range(5):
        campaign.wait(10.0)
        campaign.do(DevicesJoined((Joiner(f"later-{number}", 1),)))
    assert told(campaign) == [first]
    campaign.wait(TOLD_EVERY_S)
    campaign.do(DevicesJoined((Joiner("later-5", 1),)))
    [_, second] = told(campaign)
    assert second.startswith("6 devices joined: ")
    campaign.do(DevicesJoined((Joiner("last", 1),)))
    campaign.do(Abort("ann", "no", roll_back=False))
    assert told(campaign)[-1].startswith("1 device joined: ")
    assert campaign.rollout.joined.untold == ()


def test_that_devices_join_is_not_since_when_a_rollout_is_where_it_is() -> None:
    campaign = Campaign(continuous(1, "50%", "all"))
    campaign.do(Pause("ann", "a look"))
    paused_s = campaign.now_s
    campaign.wait(10.0)
    campaign.do(DevicesJoined((Joiner(LATE, 1),)))
    assert campaign.rollout.history[-1].kind is Happening.DEVICES_JOINED
    assert explain(campaign.rollout, {}, campaign.now_s).since_s == paused_s
    with pytest.raises(Conflict, match="The last decision, 10 s ago: Paused by ann"):
        campaign.do(Pause("bo", "too"))


def test_lines_of_joiners_become_fewer_the_longer_a_rollout_lasts() -> None:
    campaign = Campaign(patient("50%", "all"))
    decisions = campaign.rollout.decisions
    for look in range(1, 501):
        campaign.now_s += 1600.0  # nine days in all
        campaign.do(DevicesJoined((Joiner(f"later-{look}", 1),)))
    assert 20 < campaign.rollout.decisions - decisions < 70
