"""The contract of every store: a device belongs to one rollout of a model, whatever is stored."""

from __future__ import annotations

import pytest

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Conflict
from fleet.rollout.claims import Claim
from fleet.rollout.engine import create, step
from fleet.rollout.events import (
    DeploymentReported,
    DeploymentsReported,
    DevicesTaken,
    Event,
    Start,
    Supersede,
)
from fleet.rollout.plans.plan import default_plan
from fleet.rollout.state.rollout import Kind, Rollout, Status
from hub.store.protocols import Store
from hub.store.rows import OrderChange, RolloutStep, Superseded
from tests.support.stores import DIGEST, add_device, new_rollout, order

CAMS = ("cam-1", "cam-2")


def _created(store: Store, model: str = "digits") -> Rollout:
    return store.create_rollout(lambda number: new_rollout(number, model=model), 1.0).state


def _in_one_stage(number: int) -> Rollout:
    return create(
        number=number,
        kind=Kind.UPDATE,
        model="digits",
        version=3,
        manifest_sha256=DIGEST,
        plan=default_plan(1),
        seed=0,
        devices=dict.fromkeys(CAMS, 1),
        now_s=1.0,
    )


def _step(state: Rollout, event: Event) -> RolloutStep:
    return RolloutStep(step(state, event, 2.0)[0], state, 0)


def _store(store: Store, state: Rollout, event: Event) -> Rollout:
    done = _step(state, event)
    store.apply_step(done.state, previous=state, position=0, changes=[])
    return done.state


def test_a_rollout_has_its_devices_from_its_start_to_its_end(store: Store) -> None:
    created = _created(store)
    assert store.claimed_by("digits", CAMS) == {}
    started = _store(store, created, Start("ana"))
    assert store.claimed_by("digits", CAMS) == dict.fromkeys(CAMS, 1)
    assert store.claimed_by("digits", ["cam-2", "cam-9"]) == {"cam-2": 1}
    assert store.claimed_by("letters", CAMS) == {}
    _store(store, started, Supersede("ana", "trouble"))
    assert store.claimed_by("digits", CAMS) == {}


def test_a_start_that_would_share_a_device_stores_nothing(store: Store) -> None:
    first, second, other = _created(store), _created(store), _created(store, "letters")
    for state in (first, other):
        _store(store, state, Start("ana"))
    add_device(store, "cam-1")
    with pytest.raises(Conflict, match="Another rollout of digits"):
        store.apply_step(
            _step(second, Start("ana")).state,
            previous=second,
            position=0,
            changes=[OrderChange("cam-1", "digits", order(2))],
        )
    assert store.rollout(second.number).state == second
    assert store.desired("cam-1").sequence == 0
    assert store.claimed_by("digits", CAMS) == dict.fromkeys(CAMS, first.number)


def test_what_one_gives_up_another_has_in_the_same_transaction(store: Store) -> None:
    first, second = _created(store), store.create_rollout(_in_one_stage, 1.0).state
    running = _store(store, first, Start("ana"))
    waiting = next(d.device_id for d in running.deployments if d.attempt.ordered_s is None)
    [ordered] = set(CAMS) - {waiting}
    gives_up = _step(running, DevicesTaken((waiting,), second.number, 5))
    starts = _step(second, Start("ana", dict.fromkeys(CAMS, 1), {ordered: first.number}))
    with pytest.raises(Conflict):
        store.apply_steps([gives_up, _step(second, Start("ana"))])
    assert store.rollout(first.number).state == running
    store.apply_steps([gives_up, starts])
    assert store.claimed_by("digits", CAMS) == {ordered: first.number, waiting: second.number}
    assert {row.state.number for row in store.open_rollouts()} == {1, 2}


def test_a_rollback_has_the_devices_of_what_it_puts_aside(store: Store) -> None:
    running = _store(store, _created(store), Start("ana"))
    aside = step(running, Supersede("ana", "trouble"), 3.0)[0]
    store.begin_rollback(
        lambda number: (step(new_rollout(number), Start("ana"), 3.0)[0], []),
        superseded=[Superseded(aside, running)],
        position=0,
        now_s=3.0,
    )
    assert store.claimed_by("digits", CAMS) == dict.fromkeys(CAMS, 2)


def test_those_that_were_not_started_are_told_apart(store: Store) -> None:
    first, second, _ = _created(store), _created(store), _created(store, "letters")
    _store(store, first, Start("ana"))
    assert store.unstarted_claims("digits", {*CAMS, "cam-9"}) == [
        Claim(part.device_id, second.number, second.plan.priority, is_ordered=False, is_started=False)
        for part in second.deployments
    ]
    (one,) = store.unstarted_claims("digits", {"cam-2"})
    assert one.device_id == "cam-2"
    assert store.unstarted_claims("signs", set(CAMS)) == []
    assert store.rollout(first.number).state.status is Status.RUNNING


def test_the_newest_of_some_rollouts_that_brought_a_version_is_told_for_each_device(store: Store) -> None:
    for succeeded in (CAMS, CAMS[:1], ()):
        state = store.create_rollout(_in_one_stage, 1.0).state
        after = step(state, Start("ana"), 2.0)[0]
        told = tuple(
            DeploymentReported(part.device_id, part.attempt.deployment_id, DeploymentState.SUCCEEDED, 2.0)
            for part in after.deployments
            if part.device_id in succeeded
        )
        for event in (DeploymentsReported(told), Supersede("ana", "the next")):
            after = step(after, event, 2.0)[0]
        store.apply_step(after, previous=state, position=0, changes=[])
    assert store.brought_by([1, 2, 3], CAMS) == {"cam-1": 2, "cam-2": 1}
    assert store.brought_by({1}, ["cam-1", "cam-9"]) == {"cam-1": 1}
    assert store.brought_by([3], CAMS) == {}
    assert store.brought_by([], CAMS) == {}
