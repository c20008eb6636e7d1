"""The contract of every store: rollouts and their revisions."""

from __future__ import annotations

import msgspec
import pytest

from fleet.protocol.errors import Conflict, NotFound
from fleet.rollout.engine import step
from fleet.rollout.events import Approve, Pause, Resume, Start, Supersede
from fleet.rollout.state.rollout import HISTORY_KEPT, Rollout, Status
from hub.store.protocols import Store
from hub.store.rows import OrderChange, RolloutHead, RolloutRow, Superseded
from tests.support.stores import add_device, new_rollout, order


def _created(store: Store, model: str = "digits") -> RolloutRow:
    return store.create_rollout(lambda number: new_rollout(number, model=model), 1.0)


def _started(state: Rollout) -> Rollout:
    return step(state, Start(by="ana"), 2.0)[0]


def test_rollouts_are_numbered_and_read_back_whole(store: Store) -> None:
    first, second = _created(store), _created(store)
    assert (first.state.number, second.state.number) == (1, 2)
    assert store.rollout(1) == first
    assert [row.state for row in store.rollouts()] == [second.state.summary, first.state.summary]
    assert [row.state.number for row in store.rollouts()] == [2, 1]
    assert [row.state.number for row in store.rollouts(before=2)] == [1]
    assert store.rollouts(model="letters") == []
    with pytest.raises(NotFound):
        store.rollout(3)


def test_a_step_stores_state_position_and_orders_together(store: Store) -> None:
    add_device(store, "cam-1")
    row = _created(store)
    started = _started(row.state)
    change = OrderChange("cam-1", "digits", order(2))
    store.apply_step(started, previous=row.state, position=5, changes=[change])
    assert store.rollout(1).state == started
    assert store.rollout(1).position == 5
    assert [open_row.state for open_row in store.open_rollouts()] == [started]
    assert store.desired("cam-1").sequence == 1


def test_decisions_are_kept_beyond_those_at_hand(store: Store) -> None:
    state = _started(_created(store).state)
    store.apply_step(state, previous=store.rollout(1).state, position=0, changes=[])
    said = [entry.text for entry in state.history]
    for number in range(HISTORY_KEPT):
        event = Resume("ana") if number % 2 else Pause("ana", f"pause {number}")
        after = step(state, event, 3.0 + number)[0]
        store.apply_step(after, previous=state, position=0, changes=[])
        state, said = after, [*said, after.history[-1].text]
    assert len(store.rollout(1).state.history) == HISTORY_KEPT < len(said)
    assert [entry.text for entry in store.decisions(1, limit=1000)] == said
    assert [entry.text for entry in store.decisions(1, after=3, limit=2)] == said[3:5]
    assert store.decisions(2) == []


def test_the_second_of_two_concurrent_steps_is_refused_whole(store: Store) -> None:
    add_device(store, "cam-1")
    row = _created(store)
    started = _started(row.state)
    store.apply_step(started, previous=row.state, position=5, changes=[])
    change = OrderChange("cam-1", "digits", order(2))
    with pytest.raises(Conflict):
        store.apply_step(started, previous=row.state, position=9, changes=[change])
    assert store.rollout(1).position == 5
    assert store.desired("cam-1").sequence == 0


def test_a_rollback_puts_aside_and_begins_at_once_or_not_at_all(store: Store) -> None:
    add_device(store, "cam-1")
    row = _created(store)
    running = _started(row.state)
    store.apply_step(running, previous=row.state, position=0, changes=[])
    aside = step(running, Supersede(by="ana", reason="trouble"), 3.0)[0]
    change = OrderChange("cam-1", "digits", order(1))

    def build(number: int) -> tuple[Rollout, list[OrderChange]]:
        return _started(new_rollout(number)), [change]

    elsewhere = msgspec.structs.replace(running, revision=99)
    with pytest.raises(Conflict):
        store.begin_rollback(build, superseded=[Superseded(aside, elsewhere)], position=4, now_s=3.0)
    assert store.rollout(1).state == running
    assert store.desired("cam-1").sequence == 0
    begun = store.begin_rollback(build, superseded=[Superseded(aside, running)], position=4, now_s=3.0)
    assert store.rollout(1).state.status is Status.ABORTED
    assert store.rollout(begun.state.number) == begun
    assert begun.position == 4
    assert store.desired("cam-1").sequence == 1


def test_rollouts_are_counted_by_status(store: Store) -> None:
    assert store.rollout_counts() == {}
    first, _, _ = _created(store), _created(store), _created(store, "letters")
    store.apply_step(_started(first.state), previous=first.state, position=0, changes=[])
    assert store.rollout_counts() == {Status.CREATED: 2, Status.RUNNING: 1}


def test_the_size_grows_with_what_is_kept(store: Store) -> None:
    before = store.size_bytes()
    assert before > 0
    for _ in range(100):
        _created(store)
    assert store.size_bytes() > before


def test_the_newest_rollout_of_each_model_that_was_started_is_told_without_its_devices(store: Store) -> None:
    first, other = _created(store), _created(store, "letters")
    _created(store)
    assert store.newest_rollouts() == []
    started = _started(first.state)
    store.apply_step(started, previous=first.state, position=0, changes=[])
    head = RolloutHead(1, "digits", Status.RUNNING, started.revision)
    assert store.newest_rollouts() == [head]
    letters = _started(other.state)
    store.apply_step(letters, previous=other.state, position=0, changes=[])
    assert store.newest_rollouts() == [head, RolloutHead(2, "letters", Status.RUNNING, letters.revision)]


def test_what_waits_for_approval_is_counted_and_told(store: Store) -> None:
    state = _created(store).state
    first, *rest = state.plan.stages
    plan = msgspec.structs.replace(state.plan, stages=(msgspec.structs.replace(first, approval=True), *rest))
    asking = msgspec.structs.replace(state, plan=plan, revision=state.revision + 1)
    store.apply_step(asking, previous=state, position=0, changes=[])
    assert store.count_awaiting_approval() == 0
    waits = _started(asking)
    store.apply_step(waits, previous=asking, position=0, changes=[])
    assert store.count_awaiting_approval() == 1
    assert [head.awaits_approval for head in store.newest_rollouts()] == [True]
    assert store.rollout_summary(1).state == waits.summary
    approved = step(waits, Approve(by="ben"), 3.0)[0]
    store.apply_step(approved, previous=waits, position=0, changes=[])
    assert store.count_awaiting_approval() == 0
    assert [head.awaits_approval for head in store.newest_rollouts()] == [False]
    with pytest.raises(NotFound):
        store.rollout_summary(9)


def test_rollouts_under_way_stay_at_hand_however_many_others_are_looked_at(store: Store) -> None:
    models = [f"model-{number}" for number in range(12)]
    for number, model in enumerate(models, start=1):
        row = _created(store, model)
        store.apply_step(_started(row.state), previous=row.state, position=0, changes=[])
        _created(store)
        assert store.rollout(2 * number).state.status is Status.CREATED
    before = [row.state.deployments for row in store.open_rollouts()]
    after = [row.state.deployments for row in store.open_rollouts()]
    assert len(before) == len(models)
    assert all(one is other for one, other in zip(before, after, strict=True))
