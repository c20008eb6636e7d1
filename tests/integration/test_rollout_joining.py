"""Devices that join while a continuous rollout is under way, with a real store."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from fleet.protocol.assignment import ModelOrder
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause, InvalidPlan, NotFound
from fleet.protocol.manifest import Manifest
from fleet.protocol.records import DeploymentReport
from fleet.rollout.events import Pause, Start
from fleet.rollout.plans.plan import Membership, Plan, Stage
from fleet.rollout.state.rollout import Status
from hub.query.devices import Search
from hub.rollouts import joiners
from hub.rollouts.shell import Rollouts
from hub.store.rows import Action, DeviceChange, DeviceRow, OrderChange
from hub.store.sqlite import SqliteStore
from tests.support.agent_bundles import MODEL
from tests.support.rollout_shell import EVERYBODY, GATE, released, store_with
from tests.support.stores import CAPABILITIES, add_device, greeting, incoming, say


def plan(membership: Membership) -> Plan:
    """The cohort "early", then all."""
    return Plan(
        stages=(
            Stage(cohort='id like "early-*"', minimum_bake_s=1e6, maximum_bake_s=1e7),
            EVERYBODY,
        ),
        gate=GATE,
        target='site == "lyon"',
        membership=membership,
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with two early devices and a late one."""
    with store_with(tmp_path, ("early-1", "early-2", "late-1")) as opened:
        yield opened


def begun(store: SqliteStore, membership: Membership, target: str | None = None) -> tuple[Rollouts, int]:
    """Start a rollout of the plan, or to all that another target means."""
    the_plan = plan(membership)
    if target is not None:
        the_plan = msgspec.structs.replace(the_plan, target=target, stages=(EVERYBODY,))
    shell = Rollouts(store, released=released, on_orders=lambda: None)
    row = shell.create(MODEL, 1, plan=the_plan, devices=None, seed=0)
    shell.act(row.state.number, Start("ann"))
    return shell, row.state.number


@pytest.mark.parametrize("membership", Membership)
def test_who_comes_to_match_is_put_into_the_right_stage_and_ordered_there(
    store: SqliteStore, membership: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joiners, "JOIN_LOOK_S", 0.0)
    shell, number = begun(store, membership)
    for device_id in ("early-3", "late-2"):
        add_device(store, device_id)
    shell.advance()
    shell.advance()  # who is in is not taken in again
    stages = {part.device_id: part.stage for part in store.rollout(number).state.deployments}
    before = {"early-1": 0, "early-2": 0, "late-1": 1}
    joined = {"early-3": 0, "late-2": 1} if membership is Membership.CONTINUOUS else {}
    assert stages == before | joined
    ordered = store.desired_versions(MODEL).keys()
    assert ordered == {device_id for device_id, stage in stages.items() if stage == 0}


def test_a_rollout_whose_target_means_nobody_any_more_goes_on(store: SqliteStore) -> None:
    tagged = msgspec.structs.replace(plan(Membership.CONTINUOUS), target='tag("new")', stages=(EVERYBODY,))
    store.tag("late-1", add=["new"], remove=[], action=Action(1.0, "ann", "Tagged."))
    shell = Rollouts(store, released=released, on_orders=lambda: None)
    number = shell.create(MODEL, 1, plan=tagged, devices=None, seed=0).state.number
    shell.act(number, Start("ann"))
    store.tag("late-1", add=[], remove=["new"], action=Action(2.0, "ann", "Untagged."))
    failed = DeploymentReport(
        10.0, f"r{number}-0f", MODEL, 1, DeploymentState.FAILED, Cause("no_space", "Full.")
    )
    store.add_records([incoming("late-1", 1, failed)])
    shell.advance()
    state = store.rollout(number).state
    assert state.deployments[0].attempt.state is DeploymentState.FAILED
    assert state.status is Status.ROLLING_BACK


def test_who_is_named_cannot_come_to_match(store: SqliteStore) -> None:
    shell = Rollouts(store, released=released, on_orders=lambda: None)
    named = Plan(stages=plan(Membership.SNAPSHOT).stages[1:], gate=GATE, membership=Membership.CONTINUOUS)
    with pytest.raises(InvalidPlan, match="membership"):
        shell.create(MODEL, 1, plan=named, devices=["early-1"], seed=0)


@pytest.mark.parametrize("priority", [0, 1])
def test_who_comes_to_match_two_joins_the_one_of_the_higher_priority(
    store: SqliteStore, priority: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equals the one of the lower number has it, also when the other one looks first."""
    monkeypatch.setattr(joiners, "JOIN_LOOK_S", 0.0)
    shell = Rollouts(store, released=released, on_orders=lambda: None)
    store.tag("early-1", add=["lab"], remove=[], action=Action(1.0, "ann", "Tagged."))
    everybody = msgspec.structs.replace(plan(Membership.CONTINUOUS), stages=(EVERYBODY,))
    for version, target, own in ((1, 'id like "late-*"', 0), (2, 'tag("lab")', priority)):
        reaching = msgspec.structs.replace(everybody, target=target, priority=own)
        row = shell.create(MODEL, version, plan=reaching, devices=None, seed=0)
        shell.act(row.state.number, Start("ann"))
    add_device(store, "late-2")
    store.tag("late-2", add=["lab"], remove=[], action=Action(2.0, "ann", "Tagged."))
    other = store.rollout(2 - priority)
    shell._advancing.advance(other, shell._joiners.look(other.state))  # as when the first one cannot be
    shell.advance()
    assert store.claimed_by(MODEL, ["late-2"]) == {"late-2": 1 + priority}


class HeldStore(SqliteStore):
    """A store in which looks for devices wait, until they are let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.is_held = threading.Event()
        self.let_go = threading.Event()

    def device_changes(self, *, after: int = 0, limit: int = 100) -> list[DeviceChange]:
        found = super().device_changes(after=after, limit=limit)
        self.is_held.set()
        assert self.let_go.wait(30.0)
        return found


def while_looking(path: Path, meanwhile: Callable[[Rollouts, SqliteStore, int], object]) -> SqliteStore:
    """Let something happen between what a look reads and what comes of it; return the store after it."""
    store = HeldStore(path)
    add_device(store, "early-1")
    add_device(store, "late-1")
    shell, number = begun(store, Membership.CONTINUOUS)
    for device_id in ("early-3", "late-2"):
        add_device(store, device_id)
    turn = threading.Thread(target=shell.advance)
    turn.start()
    try:
        assert store.is_held.wait(30.0)
        meanwhile(shell, store, number)
        assert turn.is_alive(), "it waited for the look"
    finally:
        store.let_go.set()
        turn.join()
    return store


def test_an_operators_word_does_not_wait_for_a_look(tmp_path: Path) -> None:
    def word(shell: Rollouts, _: SqliteStore, number: int) -> None:
        assert shell.act(number, Pause("ann", "a look")).state.status is Status.PAUSED

    store = while_looking(tmp_path / "hub.db", word)
    state = store.rollout(1).state
    assert (state.status, state.stage_sizes) == (Status.PAUSED, [2, 2])
    store.close()


def test_who_is_taken_or_ordered_something_else_during_a_look_is_asked_again(tmp_path: Path) -> None:
    def others(shell: Rollouts, store: SqliteStore, _: int) -> None:
        one = msgspec.structs.replace(plan(Membership.SNAPSHOT), target='id == "late-2"', stages=(EVERYBODY,))
        row = shell.create(MODEL, 2, plan=one, devices=None, seed=0)
        row = shell.act(row.state.number, Start("ann"))
        order = OrderChange("early-3", MODEL, ModelOrder(MODEL, 5, b"m" * 32, "a", "r9-0f"))
        store.apply_step(row.state, previous=row.state, position=row.position, changes=[order])

    store = while_looking(tmp_path / "hub.db", others)
    state = store.rollout(1).state
    assert store.claimed_by(MODEL, ["early-3", "late-2"]) == {"early-3": 1, "late-2": 2}
    joined = state.deployments.of_device("early-3")
    assert joined is not None
    assert joined.previous_version == 5, "it goes back to what it should run now"
    store.close()


def test_a_fleet_is_looked_through_some_devices_a_turn_and_each_is_found(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joiners, "DEVICES_PER_TURN", 2)
    now = [1e9]
    shell = Rollouts(store, released=released, on_orders=lambda: None, clock=lambda: now[0])
    number = shell.create(MODEL, 1, plan=plan(Membership.CONTINUOUS), devices=None, seed=0).state.number
    shell.act(number, Start("ann"))
    for device_id in ("early-0", "early-3", "late-2"):
        add_device(store, device_id)
    sizes = []
    for _ in range(4):
        shell.advance()
        shell.advance()  # one more within a second looks no further
        sizes.append(store.rollout(number).state.device_count)
        now[0] += joiners.TURN_S
    assert sizes == [3, 4, 6, 6], "early-1 and 2, then late-1 and early-0, then 3 and late-2, then nobody"
    add_device(store, "late-3")
    shell.advance()
    assert store.rollout(number).state.device_count == 6, "all were looked at not long ago"
    for _ in range(4):
        now[0] += joiners.JOIN_LOOK_S
        shell.advance()
    assert store.rollout(number).state.device_count == 7


def test_a_rollout_that_cannot_go_on_keeps_nobody_out_of_others(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joiners, "DEVICES_PER_TURN", 2)
    now, gone = [1e9], set[str]()

    def there(model: str, version: int) -> tuple[str, Manifest]:
        if model in gone:
            raise NotFound(f"Model {model} has no version {version}.")
        return released(model, version)

    shell = Rollouts(store, released=there, on_orders=lambda: None, clock=lambda: now[0])
    everybody = Plan(stages=(EVERYBODY,), gate=GATE)
    for model, wanted in ((MODEL, plan(Membership.CONTINUOUS)), ("other", everybody)):
        shell.act(shell.create(model, 1, plan=wanted, devices=None, seed=0).state.number, Start("ann"))
    gone.add("other")
    add_device(store, "late-2")
    for _ in range(3):
        shell.advance()
        now[0] += joiners.TURN_S
    assert store.rollout(1).state.device_count == 4


def test_two_rollouts_share_what_is_looked_at_in_a_turn(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joiners, "DEVICES_PER_TURN", 2)
    shell = Rollouts(store, released=released, on_orders=lambda: None)
    everybody = msgspec.structs.replace(plan(Membership.CONTINUOUS), stages=(EVERYBODY,))
    for version, target in ((1, 'id like "late-*"'), (2, 'id like "early-*"')):
        reaching = msgspec.structs.replace(everybody, target=target)
        row = shell.create(MODEL, version, plan=reaching, devices=None, seed=0)
        shell.act(row.state.number, Start("ann"))
    looks = [shell._joiners.look(store.rollout(number).state) for number in (1, 2)]
    first = store.device_changes(limit=1)[0].number
    assert [look.after for look in looks if look] == [first, first]


TAGGED = Action(1.0, "ann", "Tagged.")


class CountingStore(SqliteStore):
    """A store that remembers which devices were read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read: list[str] = []

    def devices_named(self, device_ids: Iterable[str]) -> dict[str, DeviceRow]:
        found = super().devices_named(device_ids)
        self.read += found
        return found


@pytest.mark.parametrize("is_settled", [True, False], ids=["what devices are", "also what they do"])
def test_who_did_not_change_is_not_looked_at_again(
    tmp_path: Path, is_settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the target asks for what changes without being told: here, who is connected."""
    monkeypatch.setattr(joiners, "JOIN_LOOK_S", 0.0)
    target = 'tag("lab")' if is_settled else 'tag("lab") and not online'
    with closing(CountingStore(tmp_path / "hub.db")) as store:
        for name in ("in-1", "out-1", "out-2"):
            add_device(store, name)
        store.tag("in-1", add=["lab"], remove=[], action=TAGGED)
        shell, number = begun(store, Membership.CONTINUOUS, target)
        rounds = []
        for tagged in (None, None, "out-1", None):
            if tagged:
                store.tag(tagged, add=["lab"], remove=[], action=TAGGED)
            store.read.clear()
            shell.advance()
            rounds.append(sorted(set(store.read)))
        assert store.rollout(number).state.device_count == 2
    everybody = ["out-1", "out-2"]
    if is_settled:
        assert rounds == [everybody, [], ["out-1"], []]
    else:
        assert rounds == [everybody, everybody, everybody, ["out-2"]]


def test_who_could_not_be_taken_in_is_asked_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They should run the version anyhow, until they should not; where only one can be remembered, too."""
    monkeypatch.setattr(joiners, "JOIN_LOOK_S", 0.0)
    shell, number = begun(store, Membership.CONTINUOUS)
    counts = []

    def should_run(version: int, names: list[str]) -> None:
        row = store.rollout(number)
        orders = [ModelOrder(MODEL, version, b"m" * 32, "a", f"r9-{place}f") for place in range(len(names))]
        changes = [OrderChange(name, MODEL, order) for name, order in zip(names, orders, strict=True)]
        store.apply_step(row.state, previous=row.state, position=row.position, changes=changes)

    for most, names in ((2_000, ["late-2", "late-3"]), (1, ["late-4", "late-5"])):
        monkeypatch.setattr(joiners, "MOST_WAITING", most)
        for name in names:
            add_device(store, name)
        should_run(1, names)
        for _ in range(3):
            shell.advance()
        counts.append(store.rollout(number).state.device_count)
        should_run(5, names)
        for _ in range(2):
            shell.advance()
        counts.append(store.rollout(number).state.device_count)
    assert counts == [3, 5, 5, 7]


def test_whatever_changes_between_looks_nobody_is_lost(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is taken in here; some looks are forgotten, as if the hub had died before they were stored."""
    monkeypatch.setattr(joiners, "JOIN_LOOK_S", 0.0)
    monkeypatch.setattr(joiners, "TURN_S", 0.0)
    monkeypatch.setattr(joiners, "DEVICES_PER_TURN", 3)
    chance, names = random.Random(6), ["early-2", "late-1"]
    store.tag("early-1", add=["lab"], remove=[], action=TAGGED)
    shell, number = begun(store, Membership.CONTINUOUS, f'tag("lab") and memory_bytes < {2**31}')
    state, seen = store.rollout(number).state, shell._joiners

    def look() -> joiners.Look:
        found = seen.look(state)
        assert found is not None
        return found

    for place in range(80):
        name = chance.choice(names)
        match chance.randrange(4):
            case 0:
                names.append(f"cam-{place}")
                add_device(store, names[-1])
            case 1:
                store.tag(name, add=["lab"], remove=[], action=TAGGED)
            case 2:
                store.tag(name, add=[], remove=["lab"], action=TAGGED)
            case _:
                memory = chance.choice([2**30, 2**32])
                of_it = msgspec.structs.replace(CAPABILITIES, memory_bytes=memory)
                say(store, name, float(place), hello=greeting(of_it))
        one = look()
        if chance.random() < 0.7:
            seen.remember(number, one)
        if place % 10 == 9:
            while not (one := look()).is_through:
                seen.remember(number, one)
            seen.remember(number, one)
            one = look()  # a round of those that wait
            matching = {row.device_id for row in Search(store, state.plan.target).devices()} - {"early-1"}
            assert {joiner.device_id for joiner in one.found} == matching
