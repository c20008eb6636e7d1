"""The rollout engine under any sequence of events, with rules that hold after each of them.

The machine plays the operators, the devices, the network (reports come doubled, late, reordered and for
others) and the clock. What must hold is checked against the history of orders and decisions, which the
machine keeps for itself.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fleet.protocol.deployment import PROGRESS, DeploymentState
from fleet.protocol.errors import Cause, Conflict, NotPermitted
from fleet.rollout.engine import create, step
from fleet.rollout.events import (
    Abort,
    Approve,
    Assign,
    Command,
    DeploymentReported,
    DeploymentsReported,
    DevicesDetoured,
    DevicesJoined,
    DevicesTaken,
    Event,
    EvidenceObserved,
    Joiner,
    Pause,
    Promote,
    Resume,
    Start,
    Supersede,
    Ticked,
)
from fleet.rollout.plans.plan import Membership, OnInconclusive, Retries, rollback_plan
from fleet.rollout.state.columns import Attempt
from fleet.rollout.state.rollout import CauseCode, Kind, Rollout, Status
from tests.support.rollout_rules import check_rollout
from tests.support.rollouts import LABELS, NEW, OLD, plan, restored, stored, window
from tests.support.thoroughness import ALL

pytestmark = pytest.mark.thorough

STATES = st.sampled_from(DeploymentState)
OPERATORS: list[Event] = [
    Resume("ann"),
    Pause("ann", "lunch"),
    Promote("ann", "seen it work"),
    Start("ann"),
    Approve("ann", "nobody else is here"),
    Approve("bob"),
]
ENDS: list[Event] = [
    Abort("ann", "wrong model", roll_back=False),
    Abort("ann", "wrong model", roll_back=True),
    Supersede("ann", "another order follows"),
]


LIMITS = st.fixed_dictionaries(
    {
        "devices_per_minute": st.sampled_from([None, None, 60.0, 6.0]),
        "concurrency": st.sampled_from([None, None, 2]),
        "retries": st.sampled_from([Retries(), Retries(attempts=2, backoff_s=4.0)]),
        "rollback_devices_per_minute": st.sampled_from([None, 12.0]),
    }
)
TRANSPORT = Cause("delivery_timed_out", "The bytes did not arrive.")


class RolloutMachine(RuleBasedStateMachine):
    """One rollout of up to 12 devices, and everything that was ever ordered or reported."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.orders: dict[str, Assign] = {}
        self.sent: list[DeploymentReported] = []
        self.ends: dict[str, Attempt] = {}
        self.aborted_at: int | None = None
        self.superseded = False
        self.taken: set[str] = set()
        self.latest_s = self.now_s
        self.first_order_s: float | None = None
        self.rollout: Rollout

    @initialize(
        previous=st.lists(st.sampled_from([None, 1, 3]), min_size=4, max_size=12),
        share=st.sampled_from([0.9, 0.3, 0.0]),
        on_inconclusive=st.sampled_from(OnInconclusive),
        rollback=st.sampled_from([False, False, False, True]),
        limits=LIMITS,
        continuous=st.booleans(),
        seed=st.integers(0, 2**32),
        started=st.sampled_from([True, True, True, False]),
        approved=st.sampled_from([(), (), (1,), (0, 2)]),
    )
    def begin(
        self,
        *,
        previous: list[int | None],
        share: float,
        on_inconclusive: OnInconclusive,
        rollback: bool,
        limits: dict[str, Any],
        continuous: bool,
        seed: int,
        started: bool,
        approved: tuple[int, ...],
    ) -> None:
        staged = plan(maximum_failed_share=share, maximum_bake_s=20.0, on_inconclusive=on_inconclusive)
        staged = msgspec.structs.replace(
            staged,
            stages=tuple(
                msgspec.structs.replace(stage, approval=number in approved)
                for number, stage in enumerate(staged.stages)
            ),
        )
        self.rollout = create(
            number=3,
            kind=Kind.ROLLBACK if rollback else Kind.UPDATE,
            model="digits",
            version=2,
            manifest_sha256=NEW,
            plan=msgspec.structs.replace(
                rollback_plan(deployment_timeout_s=100.0) if rollback else staged,
                membership=Membership.CONTINUOUS if continuous else Membership.SNAPSHOT,
                **limits,
            ),
            seed=seed,
            devices={f"cam-{i}": version for i, version in enumerate(previous)},
            strata={f"cam-{i}": f"hardware-{i % 3}" for i in range(len(previous))},
            now_s=self.now_s,
            created_by="ann",
        )
        if started:
            self.operate(Start("ann"))

    @rule(what=st.sampled_from(OPERATORS))
    def ask(self, what: Event) -> None:
        self.operate(what)

    @rule(end=st.sampled_from([None] * 9 + ENDS))
    def end(self, end: Event | None) -> None:
        if end is not None and self.operate(end):
            self.aborted_at = len(self.orders)
            self.superseded = isinstance(end, Supersede)

    @rule(
        index=st.integers(0, 13),
        state=STATES,
        way=st.sampled_from(["b", "f", "f1", "f2", "b1", "f0"]),
        other=st.integers(0, 11),
    )
    def report_anything(self, index: int, state: DeploymentState, way: str, other: int) -> None:
        """Mostly on what was not ordered, or for another device."""
        report = DeploymentReported(f"cam-{other}", f"r3-{index}{way}", state, self.now_s)
        self.sent.append(report)
        self.apply(report)

    @precondition(lambda self: self.open_orders())
    @rule(data=st.data(), state=st.sampled_from(PROGRESS))
    def report_progress(self, data: st.DataObject, state: DeploymentState) -> None:
        self.answer(data.draw(st.sampled_from(self.open_orders())), state)

    @precondition(lambda self: self.open_orders())
    @rule(data=st.data(), state=st.sampled_from([s for s in DeploymentState if s.is_terminal]))
    def report_an_end(self, data: st.DataObject, state: DeploymentState) -> None:
        self.answer(data.draw(st.sampled_from(self.open_orders())), state)

    @precondition(lambda self: self.open_orders())
    @rule(data=st.data())
    def lose_one_on_its_way(self, data: st.DataObject) -> None:
        order = data.draw(st.sampled_from(self.open_orders()))
        self.answer(order, DeploymentState.FAILED, TRANSPORT)

    @precondition(lambda self: self.open_orders())
    @rule(data=st.data())
    def report_together(self, data: st.DataObject) -> None:
        """One event, and in it reports of several devices, some of them twice."""
        some = data.draw(st.lists(st.sampled_from(self.open_orders()), min_size=1, max_size=6))
        reports = []
        for order in some:
            state = data.draw(STATES)
            reports.append(
                DeploymentReported(order.device_id, order.deployment_id, state, self.now_s, TRANSPORT)
            )
        self.sent += reports
        self.apply(DeploymentsReported(tuple(reports)))

    @rule(
        name=st.sampled_from(["cam-0", "late-1", "late-2", "late-3"]), version=st.sampled_from([None, 1, 2])
    )
    def join(self, name: str, version: int | None) -> None:
        before = len(self.rollout.deployments)
        known = self.rollout.deployments.of_device(name) is not None
        takes = self.rollout.plan.membership is Membership.CONTINUOUS and self.rollout.status in {
            Status.CREATED,
            Status.RUNNING,
            Status.PAUSED,
        }
        self.apply(DevicesJoined((Joiner(name, version),)))
        comes = takes and not known and version != 2
        assert len(self.rollout.deployments) == before + comes

    @rule(numbers=st.sets(st.integers(0, 13), max_size=4) | st.just(frozenset(range(14))))
    def lose_devices(self, numbers: Collection[int]) -> None:
        before = {part.device_id: part.attempt for part in self.rollout.deployments}
        takes = self.rollout.status in {Status.RUNNING, Status.PAUSED}
        names = tuple(f"cam-{number}" for number in sorted(numbers))
        self.apply(DevicesTaken(names, 9, 5))
        for part in self.rollout.deployments:
            if part.attempt.cause is not None and part.attempt.cause.code == CauseCode.SUPERSEDED:
                self.taken.add(part.device_id)
        lost = {d for d in names if takes and d in before and before[d].ordered_s is None}
        lost = {d for d in lost if before[d].state is DeploymentState.QUEUED and before[d].cause is None}
        assert lost <= self.taken
        assert all(before[d].ordered_s is None for d in self.taken)

    @rule(numbers=st.sets(st.integers(0, 13), max_size=4), version=st.sampled_from([0, 1]))
    def lead_elsewhere(self, numbers: Collection[int], version: int) -> None:
        """Only who is on the way back to a version, and has not arrived, goes back to another one."""
        before, names = list(self.rollout.deployments), {f"cam-{number}" for number in numbers}
        self.apply(DevicesDetoured(dict.fromkeys(names, version), "digits version 3 was revoked."))
        for old, new in zip(before, self.rollout.deployments, strict=True):
            is_going = old.restore is not None and not old.restore.state.is_terminal
            is_led = is_going and old.previous_version is not None and old.device_id in names
            assert new.previous_version == (version if is_led else old.previous_version)

    @precondition(lambda self: self.open_orders())
    @rule()
    def all_obey(self) -> None:
        for order in self.open_orders():
            removal = order.version is None
            self.answer(order, DeploymentState.REMOVED if removal else DeploymentState.SUCCEEDED)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat_a_report(self, data: st.DataObject) -> None:
        report = data.draw(st.sampled_from(self.sent))
        self.apply(report)

    @rule(
        wrong=st.sampled_from([6, 0, 0, 6, 140, 250, -1]),
        seconds=st.sampled_from([0.0, 2.0]),
        n=st.integers(1, 5),
    )
    def observe(self, wrong: int, seconds: float, n: int) -> None:
        windows = []
        for deployment in self.rollout.deployments:
            answers = deployment.attempt.state is DeploymentState.SUCCEEDED and deployment.restore is None
            digest = NEW if answers else OLD
            windows.append((deployment.device_id, window(digest, self.now_s, wrong=wrong if answers else 6)))
        self.now_s += seconds
        self.apply(EvidenceObserved(tuple(windows * n)))

    @rule(seconds=st.sampled_from([5.0, 0.5, -5.0, 21.0, 101.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.apply(Ticked())

    @invariant()
    def storing_it_changes_nothing(self) -> None:
        read_back = restored(stored(self.rollout))
        assert read_back == self.rollout
        self.rollout = read_back

    @invariant()
    def what_holds_for_any_rollout_holds(self) -> None:
        check_rollout(self.rollout)

    @invariant()
    def who_has_to_wait_for_nothing_is_ordered_at_once(self) -> None:
        plan, status = self.rollout.plan, self.rollout.status
        at_once = plan.devices_per_minute is None and plan.concurrency is None and not plan.retries.attempts
        for deployment in self.rollout.deployments:
            ordered, begun = (
                deployment.attempt.ordered_s is not None,
                deployment.stage <= self.rollout.stage_index,
            )
            if at_once and status is Status.RUNNING and deployment.device_id not in self.taken:
                assert ordered == begun

    @invariant()
    def a_stage_that_asks_for_approval_has_that_of_a_second_person(self) -> None:
        rollout = self.rollout
        given = {approval.stage: approval.by for approval in rollout.approvals}
        begun = {number for number, _ in enumerate(rollout.stages) if rollout.plan.stages[number].approval}
        assert begun <= given.keys() <= begun | {len(rollout.stages)}
        assert set(given.values()) <= {"bob"}
        waits = rollout.awaits_since_s is not None
        assert not waits or (rollout.plan.stages[len(rollout.stages)].approval and len(given) == len(begun))
        ready = rollout.status is Status.RUNNING and (not begun or rollout.stages[-1].ended_s is not None)
        assert waits or not (ready and len(rollout.stages) == 0)

    @invariant()
    def orders_keep_to_the_pace(self) -> None:
        plan = self.rollout.plan
        forward = sum("f" in deployment_id for deployment_id in self.orders)
        if plan.devices_per_minute is not None and self.first_order_s is not None:
            burst = max(1.0, plan.devices_per_minute / 6)
            elapsed_s = self.latest_s - self.first_order_s
            assert forward <= burst + elapsed_s * plan.devices_per_minute / 60 + 1e-6

    @invariant()
    def an_attempt_that_has_ended_stays_as_it_is(self) -> None:
        attempts = self.attempts()
        for deployment_id, attempt in attempts.items():
            if attempt.state.is_terminal:
                self.ends.setdefault(deployment_id, attempt)
        for deployment_id, attempt in self.ends.items():
            assert attempts.get(deployment_id) == attempt

    @invariant()
    def a_failed_device_is_ordered_back(self) -> None:
        for deployment in self.rollout.deployments:
            attempt = deployment.attempt
            if attempt.ordered_s is not None and attempt.state.is_terminal:
                assert (
                    deployment.restore is not None
                    or attempt.state is DeploymentState.SUCCEEDED
                    or self.superseded
                    or self.rollout.kind is Kind.ROLLBACK
                )

    def teardown(self) -> None:
        """Whatever happened: left alone, a rollout that is rolling back ends, and it ends once."""
        if hasattr(self, "rollout") and self.rollout.status is Status.ROLLING_BACK:
            for _ in range(len(self.rollout.deployments) + 1):  # a wave brings one device at least
                self.now_s += 1000.0
                self.apply(Ticked())
            assert self.rollout.status.is_final

    def operate(self, event: Event) -> bool:
        before, kept = self.rollout, stored(self.rollout)
        try:
            self.apply(event)
        except (Conflict, NotPermitted):
            assert stored(before) == kept
            return False
        return True

    def apply(self, event: Event) -> None:
        before, kept = self.rollout, stored(self.rollout)
        self.latest_s = max(self.latest_s, self.now_s)
        after, commands = step(before, event, self.now_s)
        assert stored(before) == kept
        assert step(before, event, self.now_s) == (after, commands)
        assert after.revision == before.revision + (after is not before)
        if before.status.is_final:
            assert after is before
        self.check_orders(after, commands)
        self.check_promotion(before, after, event)
        self.rollout = after

    def check_orders(self, after: Rollout, commands: tuple[Command, ...]) -> None:
        for command in commands:
            if isinstance(command, Assign):
                assert command.deployment_id not in self.orders
                self.orders[command.deployment_id] = command
                deployment = after.deployments.of_device(command.device_id)
                assert deployment is not None
                forward = "f" in command.deployment_id
                if self.aborted_at is not None:  # ways back that waited for their wave, and nothing else
                    assert not forward, "an order forward after the abort"
                    assert not self.superseded
                    assert self.rollout.plan.rollback_devices_per_minute is not None
                if forward and self.first_order_s is None:
                    self.first_order_s = self.now_s
                assert command.version == (2 if forward else deployment.previous_version)

    def check_promotion(self, before: Rollout, after: Rollout, event: Event) -> None:
        """Too little data never promotes: a stage ends by an operator, or on enough good evidence."""
        for place, (old, new) in enumerate(zip(before.stages, after.stages, strict=False)):
            if old.ended_s is None and new.ended_s is not None and not isinstance(event, Promote):
                assert new.open == 0
                if new.size == 0:  # others took all of it and of what is behind; some before it may wait
                    assert not any(count[0] for count in after.tally[place:])
                    continue
                assert new.bake_started_s is not None
                bake_s = after.plan.stages[place].minimum_bake_s
                assert self.now_s >= new.bake_started_s + bake_s
                assert before.status in {Status.RUNNING, Status.PAUSED}
                if after.kind is Kind.UPDATE:
                    assert new.evidence.canary.tallies[0].total >= LABELS.minimum_samples
                    assert new.evidence.canary.tallies[0].bad < new.evidence.canary.tallies[0].total / 2

    def answer(self, order: Assign, state: DeploymentState, cause: Cause | None = None) -> None:
        report = DeploymentReported(order.device_id, order.deployment_id, state, self.now_s, cause)
        self.sent.append(report)
        self.apply(report)

    def attempts(self) -> dict[str, Attempt]:
        parts = list(self.rollout.deployments)
        both = [part.attempt for part in parts] + [part.restore for part in parts if part.restore is not None]
        return {attempt.deployment_id: attempt for attempt in both}

    def open_orders(self) -> list[Assign]:
        attempts = self.attempts()
        under_way = {deployment_id for deployment_id, attempt in attempts.items() if attempt.is_open}
        return [order for order in self.orders.values() if order.deployment_id in under_way]


RolloutMachine.TestCase.settings = settings(
    max_examples=300 if ALL else 30,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestRolloutMachine = RolloutMachine.TestCase
