"""Rollouts over engine, shell and store under any sequence of events, with a fault at any of their writes.

The machine plays the operators, the devices, the network (reports come doubled, late, reordered, impossible
and for others), the clock, a full disk, and the death of the hub between any two statements. Everything is
done to two hubs: one to which nothing ever happens, and one whose process is killed or cannot write; that one
then does the work again, as its operator or the next tick would. What both have stored is the same at all
times: a fault changes nothing but time. What must hold besides is in `tests.support.rollout_rules`.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import hypothesis
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause, StorageError
from fleet.protocol.heads import read_sealed
from fleet.protocol.messages import ModelState, StateReport
from fleet.protocol.records import DeploymentReport, RecordBody, SealedWindow, TelemetryWindow, opened
from fleet.rollout.claims import claims_of
from fleet.rollout.events import Abort, Approve, Event, Pause, Promote, Resume, Start
from fleet.rollout.plans.plan import Gate, Membership, OnFail, OnInconclusive, Plan, Retries, Stage
from fleet.rollout.state.rollout import Rollout, Status
from hub.retention import Limits, Retention
from hub.store.rows import Action, IncomingRecord
from tests.support.agent_bundles import build
from tests.support.rollout_rules import UNDER_WAY, Following, Given
from tests.support.rollout_world import Died, Fault, Outcome, Release, World, read_by_others
from tests.support.rollouts import LABELS
from tests.support.stores import CAPABILITIES, incoming, new_device, say
from tests.support.thoroughness import ALL

pytestmark = pytest.mark.thorough

MODELS = ("digits", "faces")
VERSIONS = (1, 2, 3)
DEVICES = [f"cam-{number}" for number in range(6)]
UNABLE = "cam-5"
"""Has no runtime that runs any variant: what it is ordered is refused before it is sent."""

TRANSPORT = Cause("delivery_timed_out", "The bytes did not arrive.")
BROKEN = Cause("golden_mismatch", "It answers otherwise.")
FAULTS = st.sampled_from([None, None, Fault.KILLED, Fault.FULL])
ANSWERS = st.sampled_from(
    [
        [DeploymentState.DOWNLOADING, DeploymentState.FAILED],
        [DeploymentState.TRIAL, DeploymentState.ROLLED_BACK],
        [DeploymentState.REJECTED],
        [DeploymentState.TRIAL],
        [DeploymentState.REMOVED],
    ]
) | st.lists(st.sampled_from(DeploymentState), min_size=1, max_size=4)
"""What devices report of an order, one after the other."""

NOTHING_KEPT = Limits(windows_s=0.0, minutes_s=0.0, hours_s=0.0, days_s=0.0, events_s=0.0)


def stages(sizes: tuple[int | str, ...], asks: int | None) -> tuple[Stage, ...]:
    """Return stages of which one asks for approval."""
    return tuple(
        Stage(devices=size, minimum_bake_s=5.0, maximum_bake_s=60.0, approval=number == asks)
        for number, size in enumerate(sizes)
    )


PLANS = st.fixed_dictionaries(
    {
        "stages": st.tuples(
            st.sampled_from([(1, "50%", "all"), (1, "all"), ("all",), (2, "all")]),
            st.sampled_from([None, None, None, 0, 1]),
        ).map(lambda drawn: stages(*drawn)),
        "gate": st.sampled_from([0.0, 0.4, 0.9]).map(
            lambda share: Gate(maximum_failed_share=share, metrics=(LABELS,))
        ),
        "deployment_timeout_s": st.just(100.0),
        "on_fail": st.sampled_from(OnFail),
        "on_inconclusive": st.sampled_from(OnInconclusive),
        "devices_per_minute": st.sampled_from([None, None, 6.0]),
        "concurrency": st.sampled_from([None, None, 2]),
        "retries": st.sampled_from([Retries(), Retries(attempts=2, backoff_s=4.0)]),
        "rollback_devices_per_minute": st.sampled_from([None, 12.0]),
        "membership": st.sampled_from(Membership),
        "priority": st.sampled_from([0, 0, 1, 2]),
        "target": st.sampled_from([None, 'site == "lyon"', 'tag("lab")']),
    }
).map(lambda fields: Plan(**fields))
WORDS: list[Event] = [
    Pause("ann", "lunch"),
    Resume("ann"),
    Resume("ann"),
    Promote("ann", "seen it work"),
    Promote("ann", "seen it work"),
    Approve("bob", ""),
    Approve("bob", ""),
    Approve("ann", "myself"),
    Abort("ann", "wrong model", roll_back=False),
    Abort("ann", "wrong model", roll_back=True),
]


@cache
def releases() -> dict[tuple[str, int], Release]:
    """Return what may be rolled out."""
    built = {(model, version): build(version, model=model) for model in MODELS for version in VERSIONS}
    return {key: (bundle.sha256, bundle.manifest) for key, bundle in built.items()}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with devices of two sites, one of which has a tag."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "none.db").touch()
    world = World(folder, folder / "none.db", releases())
    for number, device_id in enumerate(DEVICES):
        enrol(world, device_id, "oslo" if number % 3 == 2 else "lyon")
    tag(world, DEVICES[0], on=True)
    world.close()
    yield folder / "0.db"


def enrol(world: World, device_id: str, site: str) -> None:
    """Let a device join the fleet."""
    capabilities = CAPABILITIES
    if device_id == UNABLE:
        capabilities = msgspec.structs.replace(CAPABILITIES, runtimes={})
    world.store.add_enrolment_token(device_id, created_at_s=0.0, expires_at_s=1e12)
    device = msgspec.structs.replace(
        new_device(device_id), attributes={"site": site}, capabilities=capabilities
    )
    world.store.enrol(device, token_sha256=device_id, now_s=world.now_s)


def tag(world: World, device_id: str, *, on: bool) -> None:
    """Give a device the tag that a target asks for, or take it away."""
    names = (["lab"], []) if on else ([], ["lab"])
    action = Action(world.now_s, "ann", "Tagged.")
    world.store.tag(device_id, add=names[0], remove=names[1], action=action)


class RolloutMachine(RuleBasedStateMachine):
    """Two hubs with the same fleet, of which one suffers.

    Args:
        template: The file that both begin with.
    """

    def __init__(self, template: Path) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        for name in ("world", "twin"):
            (self.folder / name).mkdir()
        self.world = World(self.folder / "world", template, releases())
        self.twin = World(self.folder / "twin", template, releases())
        self.latest_s = self.world.now_s
        self.devices = list(DEVICES)
        self.runs: dict[tuple[str, str], int] = {}
        self.answered: set[str] = set()
        self.sent: list[IncomingRecord] = []
        self.number = 0
        self.following: dict[int, Following] = {}
        self.wanted: dict[tuple[str, str], tuple[str, int]] = {}
        self.sequences: dict[str, int] = {}

    # What people do.

    @initialize(data=st.data(), whom=st.sampled_from([3, 4, 6]))
    def everybody_runs_something(self, data: st.DataObject, whom: int) -> None:
        """Some devices have a version of one model before anything else happens."""
        first = Plan(
            stages=(Stage(devices="all", minimum_bake_s=0.0, maximum_bake_s=1e6),),
            gate=Gate(maximum_failed_share=0.9, metrics=(LABELS,)),
        )
        self.make(first, "digits", 1, devices=self.devices[:whom])
        self.act(data, 1, Start("ann"))
        self.answer(data, self.devices, SUCCEEDED)
        self.observe(data=data, wrong=30, seconds=2.0)
        assert self.rollout(1).status is Status.SUCCEEDED

    @rule(
        data=st.data(),
        plan=PLANS,
        model=st.sampled_from(["digits", "digits", "faces"]),
        version=st.sampled_from([2, 3, 1]),
        seed=st.integers(0, 9),
        started=st.sampled_from([True, True, False]),
    )
    def draw_up(
        self, *, data: st.DataObject, plan: Plan, model: str, version: int, seed: int, started: bool
    ) -> None:
        number = self.make(plan, model, version, seed=seed)
        if started and number is not None:
            self.act(data, number, Start("ann"))

    @precondition(lambda self: self.with_status(Status.CREATED))
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.act(data, data.draw(st.sampled_from(self.with_status(Status.CREATED))), Start("ann"))

    @precondition(lambda self: self.with_status(*UNDER_WAY))
    @rule(data=st.data(), word=st.sampled_from(WORDS))
    def operate(self, data: st.DataObject, word: Event) -> None:
        self.act(data, data.draw(st.sampled_from(self.with_status(*UNDER_WAY))), word)

    @rule(data=st.data(), number=st.integers(1, 3), word=st.sampled_from([*WORDS, Start("ann")]))
    def operate_on_anything(self, data: st.DataObject, number: int, word: Event) -> None:
        self.act(data, number, word)

    @rule(
        data=st.data(),
        model=st.sampled_from(MODELS),
        to=st.sampled_from([1, None, 2]),
        whom=st.sampled_from([None, None, 'site == "oslo"']),
        per_minute=st.sampled_from([None, 6.0]),
    )
    def roll_back_a_model(
        self, data: st.DataObject, model: str, to: int | None, whom: str | None, per_minute: float | None
    ) -> None:
        self.both(
            data,
            lambda world: world.rollouts.roll_back(
                model, to, by="ann", reason="bad", target=whom, devices_per_minute=per_minute
            ),
            whole=True,
        )

    @rule(data=st.data(), model=st.sampled_from(MODELS), version=st.sampled_from([None] * 5 + [2, 3]))
    def revoke(self, data: st.DataObject, model: str, version: int | None) -> None:
        if version is not None:
            for world in (self.world, self.twin):
                world.revoked.add((model, version))
            self.both(data, lambda world: world.rollouts.hold_revoked(model, version))
            self.advance(data)

    # What devices do.

    @rule(data=st.data())
    def all_obey(self, data: st.DataObject) -> None:
        self.answer(data, self.devices, SUCCEEDED)
        self.advance(data)

    @rule(
        data=st.data(),
        wrong=st.sampled_from([30, 30, 30, 30, 700]),
        seconds=st.sampled_from([6.0, 6.0, 61.0]),
    )
    def go_on(self, data: st.DataObject, wrong: int, seconds: float) -> None:
        """What happens most of the time: devices follow, answer, and time passes."""
        self.answer(data, self.devices, SUCCEEDED)
        self.advance(data)
        self.observe(data=data, wrong=wrong, seconds=seconds)

    @rule(data=st.data(), states=ANSWERS, cause=st.sampled_from([None, TRANSPORT, TRANSPORT, BROKEN]))
    def some_answer(self, data: st.DataObject, states: list[DeploymentState], cause: Cause | None) -> None:
        """In whatever order of states, also after they have ended."""
        some = data.draw(st.lists(st.sampled_from(self.devices), min_size=1, max_size=4, unique=True))
        self.answer(data, some, tuple((state, cause) for state in states))
        self.advance(data)

    @rule(
        data=st.data(),
        device=st.sampled_from(DEVICES),
        rollout=st.integers(1, 4),
        index=st.integers(0, 7),
        way=st.sampled_from(["b", "f", "f1", "f2", "b1", "f0"]),
        state=st.sampled_from(DeploymentState),
        model=st.sampled_from(MODELS),
    )
    def report_anything(  # noqa: PLR0917 - what a report says
        self,
        data: st.DataObject,
        device: str,
        rollout: int,
        index: int,
        way: str,
        state: DeploymentState,
        model: str,
    ) -> None:
        """Of deployments long ended or never ordered, of other devices, of other rollouts."""
        body = DeploymentReport(self.world.now_s, f"r{rollout}-{index}{way}", model, 2, state, None)
        self.take_in(data, [self.record(device, body)])

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), anew=st.booleans())
    def say_again(self, data: st.DataObject, anew: bool) -> None:
        """The very same record, or what it says in a record of its own."""
        known = data.draw(st.sampled_from(self.sent[-8:]))
        body = read_sealed(known.data)
        body = opened(body) if isinstance(body, SealedWindow) else body
        self.take_in(data, [self.record(known.device_id, body) if anew else known])

    @rule(data=st.data(), wrong=st.sampled_from([30, 30, 30, 700, 1250]), seconds=st.sampled_from([0.0, 2.0]))
    def observe(self, data: st.DataObject, wrong: int, seconds: float) -> None:
        """Every device reports 1,000 answers; of versions above 1 so many are wrong, or they contradict."""
        self.take_in(data, self.windows(wrong))
        self.pass_time(seconds)
        self.advance(data)

    @rule(data=st.data(), site=st.sampled_from(["lyon", "oslo"]))
    def enrol_another(self, data: st.DataObject, site: str) -> None:
        if len(self.devices) < 9:
            name = f"late-{len(self.devices)}"
            self.devices.append(name)
            for world in (self.world, self.twin):
                enrol(world, name, site)

    @rule(device=st.sampled_from(DEVICES), on=st.booleans())
    def change_a_tag(self, device: str, on: bool) -> None:
        for world in (self.world, self.twin):
            tag(world, device, on=on)

    # What happens by itself.

    @rule(data=st.data(), seconds=st.sampled_from([5.0, 0.5, -5.0, 21.0, 65.0, 130.0]))
    def wait(self, data: st.DataObject, seconds: float) -> None:
        self.pass_time(seconds)
        self.advance(data)

    @rule(data=st.data(), seconds=st.sampled_from([30.0, 1e5]))
    def be_away(self, data: st.DataObject, seconds: float) -> None:
        """The hub is away; when it is back, no deadline has passed."""
        self.both(data, World.beat)
        self.pass_time(seconds)
        self.both(data, World.come_back)
        self.advance(data)

    @rule(data=st.data())
    def forget_what_is_old(self, data: st.DataObject) -> None:
        for world in (self.world, self.twin):
            read_by_others(world.store)
            Retention(world.store, NOTHING_KEPT).run(world.now_s + 1e6)

    # What holds.

    @invariant()
    def all_that_must_hold(self) -> None:
        world = self.world
        tables, undisturbed = world.tables(), self.twin.tables()
        for name, rows in tables.items():
            assert rows == undisturbed[name], f"a fault changed more than time in {name}"
        for row in reversed(world.store.rollouts()):
            rollout = world.store.rollout(row.state.number).state
            assert rollout == self.twin.store.rollout(row.state.number).state
            following = self.following.setdefault(rollout.number, Following())
            for order in following.follow(rollout, self.latest_s):
                key = order.device_id, rollout.model
                if order.version is None:
                    self.wanted.pop(key, None)
                elif self.is_sent(rollout.model, order):
                    self.wanted[key] = order.deployment_id, order.version
        desired = {(row[0], row[1]): (row[5], row[2]) for row in tables["desired"]}
        assert desired == self.wanted, "what devices should run is what was ordered last"
        sequences = dict(tables["devices"])
        assert all(sequences[device] >= known for device, known in self.sequences.items())
        self.sequences = sequences
        held = [
            (row.state.model, claim.device_id)
            for row in world.store.open_rollouts()
            for claim in claims_of(row.state)
        ]
        assert len(held) == len(set(held)), "a device is in two rollouts of a model"
        assert {row[:2] for row in tables["rollout_claims"]} == set(held)

    def teardown(self) -> None:
        """Left to devices that obey and to an operator who promotes, every rollout ends."""
        try:
            if self.following:
                self.come_to_an_end()
        finally:
            self.world.close()
            self.twin.close()
            shutil.rmtree(self.folder)

    def come_to_an_end(self) -> None:
        """Let everything go well, on one of the hubs."""
        world = self.world
        for _ in range(60):
            rows = world.store.open_rollouts()
            if not rows:
                return
            for row in rows:
                for word in self.helping_words(row.state):
                    world.rollouts.act(row.state.number, word)
            self.follow_orders(world, self.devices, SUCCEEDED)
            world.store.add_records(self.windows(30))
            world.now_s += 20.0
            world.rollouts.advance()
        raise AssertionError(f"{[row.state.number for row in rows]} did not end")

    def is_sent(self, model: str, order: Given) -> bool:
        """Whether the hub sends an order, or refuses it in the device's place."""
        unable = order.forward and order.device_id == UNABLE
        return not unable and (model, order.version) not in self.world.revoked

    def helping_words(self, rollout: Rollout) -> Iterator[Event]:
        """Yield what operators say to a rollout that waits for them."""
        if rollout.revoked:
            yield Abort("ann", "it was revoked", roll_back=False)
        elif rollout.awaits_since_s is not None:
            if rollout.status is Status.PAUSED:
                yield Resume("ann")
            yield Approve("bob", "")
        elif rollout.status is Status.PAUSED:
            ended = rollout.stages[-1].ended_s is not None
            yield Resume("ann") if ended else Promote("ann", "end it")

    # How it is done.

    def both(self, data: st.DataObject, work: Callable[[World], object], *, whole: bool = False) -> Outcome:
        """Do work on both hubs, on one of them perhaps with a fault, after which it is done again.

        Args:
            data: Draws the fault.
            work: What is done.
            whole: Whether it is one transaction: after a fault nothing of it is stored, or all.
        """
        fault = data.draw(FAULTS, label="fault")
        before = self.world.tables() if whole and fault else None
        if fault:
            self.world.forget()
            self.twin.forget()
        outcome = self.twin.do(work)
        if fault is None or outcome.statements == 0:
            assert self.world.do(work).refusal == outcome.refusal
            return outcome
        break_at = data.draw(st.integers(0, outcome.statements - 1), label="at statement")
        with contextlib.suppress(Died, StorageError):
            self.world.do(work, break_at=break_at, fault=fault)
        if whole:
            now = self.world.tables()
            if now == self.twin.tables():
                return outcome
            assert now == before, "half of it is stored"
        assert self.world.do(work).refusal == outcome.refusal
        return outcome

    def make(
        self, plan: Plan, model: str, version: int, *, devices: list[str] | None = None, seed: int = 0
    ) -> int | None:
        """Draw a rollout up, and return its number if it was not refused."""
        outcomes = [
            world.do(
                lambda world: world.rollouts.create(model, version, plan=plan, devices=devices, seed=seed)
            )
            for world in (self.world, self.twin)
        ]
        assert outcomes[0] == outcomes[1]
        return None if outcomes[0].refusal else self.world.store.rollouts(limit=1)[0].state.number

    def act(self, data: st.DataObject, number: int, word: Event) -> None:
        self.both(data, lambda world: world.rollouts.act(number, word), whole=True)

    def advance(self, data: st.DataObject) -> None:
        self.both(data, lambda world: world.rollouts.advance())

    def take_in(self, data: st.DataObject, records: list[IncomingRecord]) -> None:
        self.sent += records
        self.both(data, lambda world: world.store.add_records(records))

    def pass_time(self, seconds: float) -> None:
        for world in (self.world, self.twin):
            world.now_s += seconds
        self.latest_s = max(self.latest_s, self.world.now_s)

    def answer(
        self,
        data: st.DataObject,
        devices: list[str],
        states: tuple[tuple[DeploymentState, Cause | None], ...],
    ) -> None:
        """Let devices report states of the orders that they have."""
        number = self.number
        self.both(data, lambda world: self.follow_orders(world, devices, states, number))

    def follow_orders(
        self,
        world: World,
        devices: list[str],
        states: tuple[tuple[DeploymentState, Cause | None], ...],
        number: int | None = None,
    ) -> None:
        """Let devices of one hub report states of their orders, and all of what they are.

        Args:
            world: The hub.
            devices: Which devices.
            states: What they report, one after the other, with its cause.
            number: Records are numbered from here, so that those of the same work are the same.
        """
        self.number = self.number if number is None else number
        records = []
        for device_id in devices:
            desired = world.store.desired(device_id)
            for order in desired.orders:
                for state, cause in states:
                    body = DeploymentReport(
                        world.now_s, order.deployment_id, order.model, order.version, state, cause
                    )
                    records.append(self.record(device_id, body))
                if states[-1][0] is DeploymentState.SUCCEEDED:
                    self.runs[device_id, order.model] = order.version
            held = tuple(
                ModelState(order.model, order.version, None, None, "COMMITTED", None)
                for order in desired.orders
            )
            for model in MODELS:
                if model not in {order.model for order in desired.orders}:
                    self.runs.pop((device_id, model), None)
            say(
                world.store,
                device_id,
                world.now_s,
                report=StateReport(world.now_s, desired.sequence, held),
            )
        world.store.add_records(records)
        self.sent += records

    def windows(self, wrong: int) -> list[IncomingRecord]:
        """Return two seconds of telemetry of all that devices run."""
        now_s = self.world.now_s
        return [
            self.record(
                device_id,
                TelemetryWindow(
                    started_at_s=now_s,
                    ended_at_s=now_s + 2.0,
                    model=model,
                    version=version,
                    manifest_sha256=releases()[model, version][0],
                    variant="onnx-fp32",
                    predictions=1000,
                    labelled=1000 if wrong <= 1000 or version == 1 else wrong,
                    correct=1000 - (min(wrong, 1000) if version > 1 else 30),
                ),
            )
            for (device_id, model), version in self.runs.items()
        ]

    def record(self, device_id: str, body: RecordBody) -> IncomingRecord:
        self.number += 1
        return incoming(device_id, self.number, body)

    def rollout(self, number: int) -> Rollout:
        return self.world.store.rollout(number).state

    def with_status(self, *statuses: Status) -> list[int]:
        return [row.state.number for row in self.world.store.rollouts() if row.state.status in statuses]


SUCCEEDED: tuple[tuple[DeploymentState, Cause | None], ...] = (
    (DeploymentState.TRIAL, None),
    (DeploymentState.SUCCEEDED, None),
)


@pytest.mark.parametrize("seed", range(3) if ALL else range(1))
def test_rollouts_hold_whatever_happens(template: Path, seed: int) -> None:
    class Machine(RolloutMachine):
        def __init__(self) -> None:
            super().__init__(template)

    run_state_machine_as_test(
        hypothesis.seed(seed)(Machine),
        settings=settings(
            max_examples=40 if ALL else 12,
            stateful_step_count=50 if ALL else 25,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
