"""Rollouts over engine, shell and store under any sequence of events, with a fault at any of their writes.

The machine plays the operators, the devices, the network (reports come doubled, late, reordered, impossible
and for others), the clock, a full disk, and the death of the hub between any two statements. Everything is
done to two hubs: one to which nothing ever happens, and one whose process is killed or cannot write; that one
then does the work again, as its operator or the next tick would. What both have stored is the same at all
times: a fault changes nothing but time.

What happens is here. What it happens to, and what must hold, is in ``tests/support/rollout_machine``::

    fleet.py      devices and versions          two_hubs.py   work on both, perhaps with a fault
    plans.py      plans and operators' words    devices.py    what devices send
    counted.py    no record is judged twice     holding.py    all that holds, and that every rollout ends

and what holds for any rollout at all in `tests.support.rollout_rules`.
"""

from __future__ import annotations

from pathlib import Path

import hypothesis
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.protocol.heads import read_sealed
from fleet.protocol.records import DeploymentReport, SealedWindow, opened
from fleet.rollout.events import Event, Start
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.rollout import Status
from hub.retention import Limits, Retention
from tests.support.rollout_machine.devices import (
    BACK_BY_ITSELF,
    BROKEN,
    LOST,
    SUCCEEDED,
    TRANSPORT,
    States,
)
from tests.support.rollout_machine.fleet import (
    DEVICES,
    MODELS,
    MOST_DEVICES,
    VERSIONS,
    enrol,
    make_template,
    tag,
)
from tests.support.rollout_machine.holding import Holding
from tests.support.rollout_machine.plans import FIRST_PLAN, PLANS, WORDS, fitting_words
from tests.support.rollout_rules import UNDER_WAY
from tests.support.rollout_world import World, read_by_others
from tests.support.thoroughness import ALL

pytestmark = pytest.mark.thorough

TOLD = [state for state in DeploymentState if state is not DeploymentState.TIMED_OUT]
"""What devices report; that time ran out is for the hub to say, and may be tried again whatever the cause."""
ANSWERS = st.sampled_from(
    [
        [DeploymentState.DOWNLOADING, DeploymentState.FAILED],
        [DeploymentState.REJECTED],
        [DeploymentState.TRIAL],
        [DeploymentState.REMOVED],
    ]
) | st.lists(st.sampled_from(TOLD), min_size=1, max_size=4)
"""What devices report of an order, one after the other."""

WRONG = st.sampled_from([30, 30, 30, 30, 700])
NOTHING_KEPT = Limits(windows_s=0.0, minutes_s=0.0, hours_s=0.0, days_s=0.0, events_s=0.0)


class RolloutMachine(Holding):
    """What people and devices do, and what happens by itself.

    Args:
        template: The file that both hubs begin with.
    """

    @initialize(data=st.data(), whom=st.sampled_from([3, 4, 6]), plan=PLANS)
    def everybody_runs_something(self, data: st.DataObject, whom: int, plan: Plan) -> None:
        """Some devices have a version of one model before anything else happens, and the next one begins."""
        self.make(FIRST_PLAN, "digits", 1, devices=self.devices[:whom])
        self.act(data, 1, Start("ann"))
        self.answer(data, self.devices, SUCCEEDED)
        self.observe(data=data, wrong=30, seconds=2.0)
        assert self.rollout(1).status is Status.SUCCEEDED
        self.draw_up(data=data, plan=plan, model="digits", version=2, seed=0, started=True)

    # What people do.

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

    @precondition(lambda self: self.with_status(Status.RUNNING, Status.PAUSED))
    @rule(data=st.data(), plan=PLANS)
    def draw_up_one_more_urgent(self, data: st.DataObject, plan: Plan) -> None:
        """It takes from another one of the model what that has not ordered yet."""
        other = self.rollout(self.with_status(Status.RUNNING, Status.PAUSED)[0])
        plan = msgspec.structs.replace(plan, priority=other.plan.priority + 1, target=None)
        version = VERSIONS[other.version % len(VERSIONS)]
        self.draw_up(data=data, plan=plan, model=other.model, version=version, seed=1, started=True)

    @precondition(lambda self: self.with_status(Status.CREATED))
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.act(data, data.draw(st.sampled_from(self.with_status(Status.CREATED))), Start("ann"))

    @precondition(lambda self: self.with_status(*UNDER_WAY))
    @rule(data=st.data())
    def operate(self, data: st.DataObject) -> None:
        """As somebody would who looks before."""
        number = data.draw(st.sampled_from(self.with_status(*UNDER_WAY)))
        self.act(data, number, data.draw(st.sampled_from(fitting_words(self.rollout(number)))))

    @rule(data=st.data(), number=st.integers(1, 3), word=st.sampled_from([*WORDS, Start("ann")]))
    def operate_on_anything(self, data: st.DataObject, number: int, word: Event) -> None:
        self.act(data, number, word)

    @rule(
        data=st.data(),
        model=st.sampled_from([None, None, *MODELS]),
        to=st.sampled_from([1, None, 2]),
        whom=st.sampled_from([None, None, 'site == "oslo"']),
        per_minute=st.sampled_from([None, 6.0]),
    )
    def roll_back_a_model(
        self,
        data: st.DataObject,
        model: str | None,
        to: int | None,
        whom: str | None,
        per_minute: float | None,
    ) -> None:
        """Now and then: it puts aside what is under way."""
        if model is not None:
            self.both(
                data,
                lambda world: world.rollouts.roll_back(
                    model, to, by="ann", reason="bad", target=whom, devices_per_minute=per_minute
                ),
                whole=True,
            )

    @rule(data=st.data(), model=st.sampled_from(MODELS), version=st.sampled_from([None] * 3 + [2, 3]))
    def revoke(self, data: st.DataObject, model: str, version: int | None) -> None:
        """Now and then: it is for good."""
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

    @rule(data=st.data(), wrong=WRONG, seconds=st.sampled_from([6.0, 6.0, 61.0]))
    def go_on(self, data: st.DataObject, wrong: int, seconds: float) -> None:
        """What happens most of the time: devices follow, answer, and time passes."""
        self.answer(data, self.devices, SUCCEEDED)
        self.advance(data)
        self.all_that_must_hold()  # the pace of orders is told from look to look
        self.observe(data=data, wrong=wrong, seconds=seconds)

    @rule(data=st.data(), seconds=st.sampled_from([0.0, 5.0, 10.0]))
    def lose_some_on_their_way(self, data: st.DataObject, seconds: float) -> None:
        """Those that wait to be tried again are, or must wait longer."""
        self.some_report(data, LOST)
        self.all_that_must_hold()  # the pace of orders is told from look to look
        self.pass_time(seconds)
        self.advance(data)

    @rule(data=st.data())
    def roll_some_back_by_themselves(self, data: st.DataObject) -> None:
        self.some_report(data, BACK_BY_ITSELF)

    @rule(data=st.data(), states=ANSWERS, cause=st.sampled_from([None, TRANSPORT, TRANSPORT, BROKEN]))
    def some_answer(self, data: st.DataObject, states: list[DeploymentState], cause: Cause | None) -> None:
        """In whatever order of states, also after they have ended."""
        self.some_report(data, [(state, cause) for state in states])

    def some_report(self, data: st.DataObject, states: States) -> None:
        some = data.draw(st.lists(st.sampled_from(self.devices), min_size=1, max_size=4, unique=True))
        self.answer(data, some, states)
        self.advance(data)

    @rule(
        data=st.data(),
        device=st.sampled_from(DEVICES),
        rollout=st.integers(1, 4),
        index=st.integers(0, 7),
        way=st.sampled_from(["b", "f", "f1", "f2", "b1", "f0"]),
        state=st.sampled_from(TOLD),
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
        self.advance(data)

    @rule(data=st.data(), wrong=st.sampled_from([30, 30, 30, 700, 1250]), seconds=st.sampled_from([0.0, 2.0]))
    def observe(self, data: st.DataObject, wrong: int, seconds: float) -> None:
        """Every device reports 1,000 answers; of versions above 1 so many are wrong, or they contradict."""
        self.take_in(data, self.windows(wrong))
        self.pass_time(seconds)
        self.advance(data)

    @rule(data=st.data(), site=st.sampled_from(["lyon", "oslo"]))
    def enrol_another(self, data: st.DataObject, site: str) -> None:
        """It may join what is under way, when that is looked for again."""
        if len(self.devices) < MOST_DEVICES:
            name = f"late-{len(self.devices)}"
            self.devices.append(name)
            for world in (self.world, self.twin):
                enrol(world, name, site)
            self.pass_time(31.0)
            self.advance(data)

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

    @rule()
    def forget_what_is_old(self) -> None:
        for world in (self.world, self.twin):
            read_by_others(world.store)
            Retention(world.store, NOTHING_KEPT).run(world.now_s + 1e6)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.mark.parametrize("seed", range(4) if ALL else range(1))
def test_rollouts_hold_whatever_happens(template: Path, seed: int) -> None:
    class Machine(RolloutMachine):
        def __init__(self) -> None:
            super().__init__(template)

    run_state_machine_as_test(
        hypothesis.seed(seed)(Machine),
        settings=settings(
            max_examples=30 if ALL else 8,
            stateful_step_count=50 if ALL else 25,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
