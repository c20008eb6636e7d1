"""Claims of several rollouts of one model under any sequence of events: a device belongs to one at most.

The machine carries claims from step to step only by `changed_claims`, as a store does, and compares them with
what the rollouts themselves say.
"""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Conflict, InvalidPlan
from fleet.rollout.claims import Settlement, changed_claims, claims_of, priority_of, settle_claims
from fleet.rollout.engine import create, step
from fleet.rollout.events import (
    Abort,
    Assign,
    DeploymentReported,
    DevicesJoined,
    DevicesTaken,
    Event,
    Joiner,
    Pause,
    Promote,
    Resume,
    Start,
    Supersede,
    Ticked,
)
from fleet.rollout.plans.plan import Membership, Plan, Stage, rollback_plan
from fleet.rollout.state.rollout import Kind, Rollout, Status
from tests.support.rollouts import NEW, plan
from tests.support.thoroughness import ALL

pytestmark = pytest.mark.thorough
CAMS = [f"cam-{number}" for number in range(6)]
WORDS: list[Event] = [
    Promote("ann", "go on"),
    Pause("ann", ""),
    Resume("ann"),
    Ticked(),
    Abort("ann", "", roll_back=True),
    Abort("ann", "", roll_back=False),
]


def drawn_up(priority: int, concurrency: int | None, membership: Membership) -> Plan:
    """Return a plan of one stage, or of two where orders are not limited."""
    made = plan("all") if concurrency else plan(1, "all")
    return Plan(
        stages=tuple(Stage(devices=s.devices, minimum_bake_s=5, maximum_bake_s=9) for s in made.stages),
        gate=made.gate,
        priority=priority,
        concurrency=concurrency,
        membership=membership,
    )


class Claims(RuleBasedStateMachine):
    """Operators, devices and time, and the claims that a store would keep."""

    def __init__(self) -> None:
        super().__init__()
        self.rollouts: dict[int, Rollout] = {}
        self.claims: dict[str, int] = {}
        self.ordered_by: dict[str, int] = {}
        self.now_s = 1000.0

    @rule(
        devices=st.sets(st.sampled_from(CAMS), min_size=2),
        priority=st.integers(-1, 1),
        concurrency=st.sampled_from([None, 1]),
        membership=st.sampled_from(Membership),
    )
    def create(
        self, devices: set[str], priority: int, concurrency: int | None, membership: Membership
    ) -> None:
        made = self.made(Kind.UPDATE, devices, drawn_up(priority, concurrency, membership))
        reaching = {n: {c.device_id for c in claims_of(r)} & devices for n, r in self.rollouts.items()}
        try:
            self.settled(made, self.rollouts.values())
        except InvalidPlan:
            meets = {n for n, shared in reaching.items() if shared}
            equal = any(priority_of(self.rollouts[n]) == priority for n in meets)
            assert equal or set().union(*reaching.values()) == devices
            return
        self.rollouts[made.number] = made

    @precondition(lambda self: self.rollouts)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        rollout = self.any(data)
        others = [other for other in self.under_way() if other.number != rollout.number]
        steps: list[tuple[Rollout, Event]] = []
        try:
            settled = self.settled(rollout, others)
            left = {name: number for name, number in settled.left.items() if number != rollout.number}
            started = step(rollout, Start("ann", dict.fromkeys(CAMS, 1), left), self.now_s)
        except (InvalidPlan, Conflict):
            return
        for other in others:
            names = tuple(name for name, number in settled.taken.items() if number == other.number)
            if names:
                steps.append((other, DevicesTaken(names, rollout.number, rollout.plan.priority)))
        done = [(other, *step(other, event, self.now_s)) for other, event in steps]
        self.store([*done, (rollout, *started)])

    @precondition(lambda self: self.rollouts)
    @rule(data=st.data(), word=st.sampled_from(WORDS), seconds=st.sampled_from([0.0, 6.0, 4000.0]))
    def go_on(self, data: st.DataObject, word: Event, seconds: float) -> None:
        self.now_s += seconds
        rollout = self.any(data)
        try:
            self.store([(rollout, *step(rollout, word, self.now_s))])
        except Conflict:
            return

    @precondition(lambda self: self.rollouts)
    @rule(data=st.data(), state=st.sampled_from([s for s in DeploymentState if s.is_terminal]))
    def report(self, data: st.DataObject, state: DeploymentState) -> None:
        rollout = self.any(data)
        for part in rollout.deployments:
            for attempt in (part.attempt, part.restore):
                if attempt is not None and attempt.is_open:
                    event = DeploymentReported(part.device_id, attempt.deployment_id, state, self.now_s)
                    self.store([(rollout, *step(rollout, event, self.now_s))])
                    return

    @precondition(lambda self: self.rollouts)
    @rule(data=st.data(), names=st.sets(st.sampled_from([*CAMS, "late-1", "late-2"])))
    def join(self, data: st.DataObject, names: Collection[str]) -> None:
        rollout = self.any(data)
        if rollout.status is Status.CREATED:  # nobody is looked for before the start
            return
        free = [name for name in sorted(names) if name not in self.claims]
        event = DevicesJoined(tuple(Joiner(name, 1) for name in free))
        self.store([(rollout, *step(rollout, event, self.now_s))])

    @rule(devices=st.sets(st.sampled_from(CAMS), min_size=1))
    def roll_back(self, devices: set[str]) -> None:
        aside = [(other, *step(other, Supersede("ann", ""), self.now_s)) for other in self.under_way()]
        made = self.made(Kind.ROLLBACK, devices, rollback_plan())
        self.rollouts[made.number] = made
        self.store([*aside, (made, *step(made, Start("ann"), self.now_s))])

    @invariant()
    def who_has_a_device_is_one_rollout_and_says_so_itself(self) -> None:
        said = [(c.device_id, r.number) for r in self.under_way() for c in claims_of(r)]
        assert sorted(said) == sorted(self.claims.items())
        assert len(dict(said)) == len(said)

    @invariant()
    def what_a_rollout_has_ordered_stays_with_it_to_its_end(self) -> None:
        for rollout in self.under_way():
            for part in rollout.deployments:
                if part.attempt.ordered_s is not None:
                    assert self.claims[part.device_id] == self.ordered_by[part.device_id] == rollout.number

    def made(self, kind: Kind, devices: Collection[str], the_plan: Plan) -> Rollout:
        return create(
            number=len(self.rollouts) + 1,
            kind=kind,
            model="digits",
            version=2,
            manifest_sha256=NEW,
            plan=the_plan,
            seed=0,
            devices=dict.fromkeys(sorted(devices), 1),
            now_s=self.now_s,
        )

    def any(self, data: st.DataObject) -> Rollout:
        return self.rollouts[data.draw(st.sampled_from(sorted(self.rollouts)))]

    def under_way(self) -> list[Rollout]:
        return [r for r in self.rollouts.values() if r.status is not Status.CREATED and not r.status.is_final]

    def settled(self, rollout: Rollout, others: Collection[Rollout]) -> Settlement:
        members = {claim.device_id for claim in claims_of(rollout)}
        return settle_claims(members, priority_of(rollout), (c for other in others for c in claims_of(other)))

    def store(self, steps: Collection[tuple[Rollout, Rollout, tuple[object, ...]]]) -> None:
        """Keep states and claims as a store does: what is given up first, and no device twice."""
        changes = [(after, changed_claims(before, after)) for before, after, _ in steps]
        for after, change in changes:
            for name in change.ended:
                assert self.claims.pop(name) == after.number
        for after, change in changes:
            for name in change.begun:
                assert self.claims.setdefault(name, after.number) == after.number, "it is another one's"
            self.rollouts[after.number] = after
        for before, _, commands in steps:
            for command in commands:
                if isinstance(command, Assign):
                    self.ordered_by[command.device_id] = before.number


TestClaims = Claims.TestCase
TestClaims.settings = settings(max_examples=200 if ALL else 20, stateful_step_count=20, deadline=None)
