"""Targets that ask of health mean what is true when they are asked, not when devices were judged last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fleet.health import HealthPolicy
from fleet.protocol.errors import InvalidPlan
from fleet.rollout.events import Start, Supersede
from fleet.rollout.plans.plan import Membership, Plan
from hub.health import FleetStates
from hub.rollouts.shell import Rollouts
from hub.store.sqlite import SqliteStore
from hub.store.state_rows import StateRules
from tests.support.agent_bundles import MODEL
from tests.support.rollout_shell import EVERYBODY, GATE, released, store_with
from tests.support.stores import say

CAMS = ("cam-0", "cam-1", "cam-2")
PLAN = Plan(stages=(EVERYBODY,), gate=GATE, target='health == "offline"')


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with three devices that are online."""
    with store_with(tmp_path, CAMS) as opened:
        for device_id in CAMS:
            say(opened, device_id, time.time(), online=True)
        yield opened


@pytest.fixture
def rollouts(store: SqliteStore) -> Rollouts:
    """A shell over the store, as the hub puts it together; all states are up to date."""
    states = FleetStates(store, StateRules(HealthPolicy(silence_limit_s=1e6), ()))
    states.advance()
    return Rollouts(store, released=released, on_orders=lambda: None, refresh=states.before_answer)


def leave(store: SqliteStore, device_id: str) -> None:
    say(store, device_id, time.time(), online=False)


def members(store: SqliteStore, number: int) -> set[str]:
    return {part.device_id for part in store.rollout(number).state.deployments}


def test_a_plan_means_who_is_offline_now(store: SqliteStore, rollouts: Rollouts) -> None:
    with pytest.raises(InvalidPlan, match="no device matches"):
        rollouts.create(MODEL, 1, plan=PLAN, devices=None, seed=0)
    leave(store, "cam-1")
    number = rollouts.create(MODEL, 1, plan=PLAN, devices=None, seed=0).state.number
    assert members(store, number) == {"cam-1"}


def test_a_cohort_is_who_is_offline_now(store: SqliteStore, rollouts: Rollouts) -> None:
    named = msgspec.structs.replace(EVERYBODY, devices=None, cohort='health == "offline"')
    plan = msgspec.structs.replace(PLAN, target=None, stages=(named, EVERYBODY))
    leave(store, "cam-2")
    state = rollouts.create(MODEL, 1, plan=plan, devices=None, seed=0).state
    assert {part.device_id for part in state.deployments if part.stage == 0} == {"cam-2"}


def test_who_goes_offline_joins_with_the_next_look(store: SqliteStore, rollouts: Rollouts) -> None:
    plan = msgspec.structs.replace(PLAN, membership=Membership.CONTINUOUS)
    leave(store, "cam-0")
    number = rollouts.create(MODEL, 1, plan=plan, devices=None, seed=0).state.number
    rollouts.act(number, Start("ann"))
    leave(store, "cam-1")
    rollouts.advance()
    assert members(store, number) == {"cam-0", "cam-1"}


def test_a_rollback_means_who_is_offline_now(store: SqliteStore, rollouts: Rollouts) -> None:
    everybody = msgspec.structs.replace(PLAN, target=None)
    number = rollouts.create(MODEL, 2, plan=everybody, devices=None, seed=0).state.number
    rollouts.act(number, Start("ann"))
    rollouts.act(number, Supersede("ann", "the rest does not matter"))
    leave(store, "cam-2")
    assert rollouts.retreat(MODEL, 1, target='health == "offline"').devices == ("cam-2",)
