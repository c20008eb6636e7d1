"""Rollbacks by command: to which version, which devices, and what that puts aside; with a real store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Conflict, InvalidPlan, InvalidTarget, NotFound
from fleet.protocol.manifest import Manifest
from fleet.rollout.events import Abort, DeploymentReported, DeploymentsReported, Start
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.rollout import Kind, Status
from hub.rollouts.shell import Rollouts
from hub.store.sqlite import SqliteStore
from tests.support.agent_bundles import MODEL, build
from tests.support.rollout_shell import EVERYBODY, GATE, store_with

BACK, GONE = DeploymentState.SUCCEEDED, DeploymentState.REMOVED
RELEASED = {1: build(1), 3: build(3), 4: build(4)}
NORTH, SOUTH = ("north-1", "north-2", "north-3"), ("south-1", "south-2")
PLAN = Plan(stages=(EVERYBODY,), gate=GATE)


def released(model: str, version: int) -> tuple[str, Manifest]:
    """Return what is known of a version; 2 was made and never released, 5 does not exist."""
    if model != MODEL or version > max(RELEASED):
        raise NotFound(f"There is no version {version} of {model}.")
    if version not in RELEASED:
        raise Conflict(f"Version {version} of {model} was not released.")
    return RELEASED[version].sha256, RELEASED[version].manifest


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with three devices in the north and two in the south."""
    with store_with(tmp_path, (*NORTH, *SOUTH)) as opened:
        yield opened


@pytest.fixture
def rollouts(store: SqliteStore) -> Rollouts:
    """A shell over the store."""
    return Rollouts(store, released=released, on_orders=lambda: None)


def bring(rollouts: Rollouts, version: int, where: str) -> int:
    """Begin to bring a version to some devices, and return the rollout's number."""
    plan = msgspec.structs.replace(PLAN, target=where)
    number = rollouts.create(MODEL, version, plan=plan, devices=None, seed=0, by="ann").state.number
    rollouts.act(number, Start("ann"))
    return number


def succeed(store: SqliteStore, rollouts: Rollouts, number: int) -> None:
    """Have every device of a rollout report that it runs the version."""
    at_s = time.time()
    reports = [
        DeploymentReported(part.device_id, part.attempt.deployment_id, DeploymentState.SUCCEEDED, at_s)
        for part in store.rollout(number).state.deployments
    ]
    rollouts.act(number, DeploymentsReported(tuple(reports)))


def finish(store: SqliteStore, rollouts: Rollouts, number: int) -> None:
    """Have every device of a rollout report that it runs the version, and end the rollout there."""
    succeed(store, rollouts, number)
    rollouts.act(number, Abort("ann", "that is all", roll_back=False))
    assert store.rollout(number).state.status is Status.ABORTED


def everywhere(store: SqliteStore, rollouts: Rollouts, version: int) -> None:
    """Have every device run a version."""
    finish(store, rollouts, bring(rollouts, version, 'id like "*"'))
    assert set(store.desired_versions(MODEL).values()) == {version}


def test_without_a_version_it_is_the_newest_released_one_below(
    store: SqliteStore, rollouts: Rollouts
) -> None:
    everywhere(store, rollouts, 1)
    everywhere(store, rollouts, 3)
    told = rollouts.retreat(MODEL, None)
    assert (told.to, set(told.devices), told.leaves) == (1, {*NORTH, *SOUTH}, {3: 5})
    assert told.sentence == f"5 devices go back to version 1 of {MODEL}: 5 from version 3."
    row = rollouts.roll_back(MODEL, None, by="ben", reason="complaints", devices_per_minute=6.0)
    assert (row.state.kind, row.state.version, row.state.device_count) == (Kind.ROLLBACK, 1, 5)
    assert row.state.movers == ("ben",)
    assert sum(version == 1 for version in store.desired_versions(MODEL).values()) == 1, "in waves"


def taken_back(store: SqliteStore, rollouts: Rollouts, version: int, where: str) -> int:
    """Bring a version to some devices, have all of them commit it, and take it back from them."""
    number = bring(rollouts, version, where)
    succeed(store, rollouts, number)
    rollouts.act(number, Abort("ann", "worse", roll_back=True))
    ways = [(part.device_id, part.restore) for part in store.rollout(number).state.deployments]
    desired, at_s = store.desired_versions(MODEL), time.time()
    reports = [
        DeploymentReported(who, way.deployment_id, BACK if who in desired else GONE, at_s)
        for who, way in ways
        if way is not None
    ]
    rollouts.act(number, DeploymentsReported(tuple(reports)))
    assert store.rollout(number).state.status is Status.ROLLED_BACK
    return number


def test_a_version_that_was_taken_back_is_never_found_and_named_only_with_a_word(
    store: SqliteStore, rollouts: Rollouts
) -> None:
    everywhere(store, rollouts, 1)
    rejected = taken_back(store, rollouts, 3, 'id like "*"')
    everywhere(store, rollouts, 4)
    assert rollouts.retreat(MODEL, None).to == 1, "3 was committed by all, and taken back from all"
    assert rollouts.retreat(MODEL, None).doubt == ""
    told = rollouts.retreat(MODEL, 3)
    assert told.doubt == f"Version 3 is rejected: its last rollout, {rejected}, was ROLLED_BACK."
    state = rollouts.roll_back(MODEL, 3, by="ben", reason="I know").state
    assert [warned.text for warned in state.warned] == [told.doubt]
    assert state.history[0].text == f"Started by ben. {told.doubt}"


def test_where_none_is_proven_it_says_what_can_be_named(store: SqliteStore, rollouts: Rollouts) -> None:
    finish(store, rollouts, bring(rollouts, 1, 'id == "north-1"'))
    rejected = taken_back(store, rollouts, 3, 'id like "south-*"')
    everywhere(store, rollouts, 4)
    with pytest.raises(InvalidPlan, match="below 4 is proven") as refused:
        rollouts.retreat(MODEL, None)
    assert f"3 (its last rollout, {rejected}, was ROLLED_BACK), 1 (no rollout of it succeeded)" in str(
        refused.value
    )
    assert "--to" in refused.value.remedy
    assert rollouts.retreat(MODEL, None, target='id == "north-1"').to == 1, "this one ran it before"
    assert rollouts.retreat(MODEL, 1).doubt.startswith("Version 1 is not proven")


def test_what_a_rollback_led_away_from_is_not_found_again(store: SqliteStore, rollouts: Rollouts) -> None:
    for version in (1, 3):
        everywhere(store, rollouts, version)
    back = rollouts.roll_back(MODEL, 1, by="ben", reason="3 is harmful").state.number
    succeed(store, rollouts, back)
    everywhere(store, rollouts, 4)
    assert rollouts.retreat(MODEL, None).to == 1
    assert rollouts.retreat(MODEL, 3).doubt == (
        f"Version 3 is rejected: rollback {back} led back to version 1 since."
    )


def test_those_that_are_back_already_stay_as_they_are(store: SqliteStore, rollouts: Rollouts) -> None:
    everywhere(store, rollouts, 3)
    finish(store, rollouts, bring(rollouts, 4, 'id like "north-*"'))
    told = rollouts.retreat(MODEL, None)
    assert (told.to, set(told.devices)) == (3, set(NORTH))
    told = rollouts.retreat(MODEL, 1)
    assert told.leaves == {4: 3, 3: 2}
    assert told.sentence.endswith("3 from version 4, 2 from version 3.")


def test_a_target_narrows_it(store: SqliteStore, rollouts: Rollouts) -> None:
    everywhere(store, rollouts, 1)
    everywhere(store, rollouts, 3)
    rollouts.roll_back(MODEL, 1, by="ben", reason="", target='id like "south-*"')
    desired = store.desired_versions(MODEL)
    assert {desired[device_id] for device_id in SOUTH} == {1}
    assert {desired[device_id] for device_id in NORTH} == {3}
    with pytest.raises(InvalidPlan, match="No device that the target means"):
        rollouts.retreat(MODEL, 1, target='id like "south-*"')
    with pytest.raises(InvalidTarget):
        rollouts.retreat(MODEL, 1, target="site ==")


def test_a_rollout_under_way_is_put_aside_if_the_target_means_all_of_it(
    store: SqliteStore, rollouts: Rollouts
) -> None:
    everywhere(store, rollouts, 1)
    number = bring(rollouts, 3, 'id like "north-*"')
    assert rollouts.retreat(MODEL, None).sentence.endswith(f"Put aside: rollout {number}.")
    with pytest.raises(Conflict, match="2 devices outside the target"):
        rollouts.retreat(MODEL, 1, target='id == "north-1"')
    assert store.rollout(number).state.status is Status.RUNNING
    rollouts.roll_back(MODEL, 1, by="ben", reason="harm", target='id like "north-*"')
    aside = store.rollout(number).state
    assert aside.status is Status.ABORTED
    assert aside.history[-1].text == "ABORTED: Superseded by ben: rolled back to version 1: harm."
    assert set(store.desired_versions(MODEL).values()) == {1}


def test_one_of_other_devices_goes_on(store: SqliteStore, rollouts: Rollouts) -> None:
    everywhere(store, rollouts, 3)
    number = bring(rollouts, 4, 'id like "north-*"')
    told = rollouts.retreat(MODEL, 1, target='id like "south-*"')
    assert (told.in_the_way, set(told.devices)) == ((), set(SOUTH))
    rollouts.roll_back(MODEL, 1, by="ben", reason="", target='id like "south-*"')
    assert store.rollout(number).state.status is Status.RUNNING


def test_there_has_to_be_an_older_one_that_was_released(store: SqliteStore, rollouts: Rollouts) -> None:
    with pytest.raises(InvalidPlan, match="no released version"):
        rollouts.retreat(MODEL, None)
    everywhere(store, rollouts, 1)
    with pytest.raises(InvalidPlan, match="to go back to from 1"):
        rollouts.retreat(MODEL, None)
    with pytest.raises(Conflict, match="was not released"):
        rollouts.retreat(MODEL, 2)
    with pytest.raises(NotFound):
        rollouts.retreat(MODEL, 9)
    with pytest.raises(InvalidPlan, match="nothing to roll back"):
        rollouts.roll_back(MODEL, 3, by="ben", reason="")
