"""What holds for any rollout at any moment, and what holds from one moment to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from fleet.protocol.deployment import DeploymentState
from fleet.rollout.pace import BURST_S
from fleet.rollout.state.columns import KINDS, Attempt, Deployment
from fleet.rollout.state.rollout import HISTORY_KEPT, CauseCode, Happening, Kind, Rollout, Status

UNDER_WAY = frozenset({Status.RUNNING, Status.PAUSED, Status.ROLLING_BACK})
GOOD = frozenset({DeploymentState.SUCCEEDED, DeploymentState.CANCELED})


def check_rollout(rollout: Rollout) -> None:
    """Check all that can be read from one state."""
    check_stages(rollout)
    check_counters(rollout)
    check_tally(rollout)
    check_nobody_is_forgotten(rollout)
    check_limits(rollout)
    check_ways_back(rollout)
    check_revoked(rollout)
    check_end(rollout)


def check_stages(rollout: Rollout) -> None:
    """Stages begin in order, each after the one before has ended by PASS or by an operator."""
    ended = [stage.ended_s is not None for stage in rollout.stages]
    assert all(ended[:-1])
    for deployment in rollout.deployments:
        assert deployment.stage <= rollout.stage_index or deployment.attempt.ordered_s is None
    given = {approval.stage for approval in rollout.approvals}
    assert all(n in given for n in range(len(ended)) if rollout.plan.stages[n].approval)
    said = Counter(entry.kind for entry in rollout.history)
    if rollout.decisions <= HISTORY_KEPT:
        assert sum(ended) == said[Happening.STAGE_PASSED] + said[Happening.OVERRIDDEN]
        assert sum(stage.overridden for stage in rollout.stages) == said[Happening.OVERRIDDEN]


def check_counters(rollout: Rollout) -> None:
    """What stages and the rollout count is what a count of the devices gives."""
    for number, stage in enumerate(rollout.stages):
        cohort = [d.attempt for d in rollout.deployments if d.stage == number and not _is_taken(d)]
        assert stage.size == len(cohort)
        assert stage.open == sum(not attempt.state.is_terminal for attempt in cohort)
        assert stage.failed >= sum(a.state.is_terminal and a.state not in GOOD for a in cohort)
    open_back = [d for d in rollout.deployments if d.restore is not None and not d.restore.state.is_terminal]
    assert rollout.open_restores == len(open_back)
    assert rollout.open_removals == sum(d.previous_version is None for d in open_back)
    ended_back = [d for d in rollout.deployments if d.restore is not None and d.restore.state.is_terminal]
    assert rollout.restored == sum(d.is_restored for d in ended_back)
    assert rollout.unrestored == len(ended_back) - rollout.restored


def check_tally(rollout: Rollout) -> None:
    """The tally is the sum of what the devices' states say."""
    tally = [[0] * KINDS for _ in rollout.plan.stages]
    for d in rollout.deployments:
        tally[d.stage][0 if _waits(d) else 1 + list(DeploymentState).index(d.attempt.state)] += 1
    assert rollout.tally == tuple(map(tuple, tally))


def check_nobody_is_forgotten(rollout: Rollout) -> None:
    """Whoever waits is in front of a cursor, and whoever is to answer can run out of time."""
    for d in rollout.deployments:
        if _waits(d) and d.due_s is None and d.stage <= rollout.stage_index:
            assert d.index >= rollout.cursor, "nobody would ever order it"
        if d.restore is not None and not d.restore.state.is_terminal and d.restore.ordered_s is None:
            assert d.index >= rollout.back_cursor, "nobody would ever order it back"
        is_open = d.attempt.is_open or (d.restore is not None and d.restore.is_open)
        assert not is_open or d.due_s is not None, "it would never run out of time"
    due = [d.due_s for d in rollout.deployments if d.due_s is not None]
    slack_s = rollout.plan.deployment_timeout_s / 64
    assert not due or (rollout.next_due_s is not None and rollout.next_due_s <= min(due) + slack_s + 5.0)


def check_limits(rollout: Rollout) -> None:
    """No more orders are open, and no more tries were made, than the plan allows."""
    plan = rollout.plan
    open_forward = sum(d.attempt.is_open for d in rollout.deployments)
    assert plan.concurrency is None or open_forward <= plan.concurrency
    assert all(d.tries <= plan.retries.attempts for d in rollout.deployments)


def check_ways_back(rollout: Rollout) -> None:
    """An operator's rollback leads nobody back unless it is itself aborted."""
    if rollout.kind is Kind.ROLLBACK and rollout.status in {Status.CREATED, Status.RUNNING, Status.PAUSED}:
        assert all(deployment.restore is None for deployment in rollout.deployments)


def check_revoked(rollout: Rollout) -> None:
    """A revoked version is on its way to nobody, but where an operator's rollback leads to it."""
    if rollout.revoked and rollout.kind is not Kind.ROLLBACK:
        assert not any(d.attempt.is_open for d in rollout.deployments)


def check_end(rollout: Rollout) -> None:
    """A rollout that has ended expects nothing of anybody; ROLLED_BACK means that everybody is back."""
    if rollout.status.is_final:
        assert rollout.ended_s is not None
        assert all(deployment.has_ended for deployment in rollout.deployments)
    if rollout.status is Status.ROLLED_BACK:
        assert rollout.cause is not None
        for d in rollout.deployments:
            assert d.is_restored or not (d.attempt.ordered_s is not None or d.tries > 0)


class Given(NamedTuple):
    """An order that a step gave.

    Attributes:
        device_id: To whom.
        deployment_id: Its id.
        version: What the device is to run; None to remove the model.
        forward: Whether it leads forward.
        alone: Whether it leads back a device that failed: that is ordered at once, whatever the pace.
    """

    device_id: str
    deployment_id: str
    version: int | None
    forward: bool
    alone: bool = False


def given(before: Rollout | None, after: Rollout) -> Iterator[Given]:
    """Yield the orders that were given between two states, a device's way forward before its way back.

    Args:
        before: None for a rollout that is new.
        after: A later state of it.
    """
    known: Mapping[str, Deployment] = {d.device_id: d for d in before.deployments} if before else {}
    for d in after.deployments:
        old = known.get(d.device_id)
        if _is_newly_ordered(old.attempt if old else None, d.attempt):
            yield Given(d.device_id, d.attempt.deployment_id, after.version, forward=True)
        if d.restore is not None and _is_newly_ordered(old.restore if old else None, d.restore):
            alone = d.attempt.state not in GOOD
            yield Given(d.device_id, d.restore.deployment_id, d.previous_version, forward=False, alone=alone)


class Following:
    """A rollout from its first state to its last: what must hold from one state to the next."""

    def __init__(self) -> None:
        self._latest: Rollout | None = None
        self._ends: dict[str, Attempt] = {}
        self._paces = {True: _Orders(), False: _Orders()}

    def follow(self, after: Rollout, now_s: float) -> list[Given]:
        """Check the next state, and return the orders that it gave.

        Args:
            after: The state.
            now_s: The latest that the hub's clock has ever been.
        """
        before = self._latest
        orders = list(given(before, after))
        check_rollout(after)
        self._check_ends(after)
        if before is not None:
            assert after.revision >= before.revision
            assert not before.status.is_final or after == before
            assert not _goes_back(before) or not any(order.forward for order in orders)
            self._check_promotion(before, after)
        self._check_pace(after, orders, now_s)
        self._latest = after
        return orders

    def _check_ends(self, after: Rollout) -> None:
        """An attempt that has ended stays as it is; one that is tried again is another."""
        found = {}
        for d in after.deployments:
            for attempt in (d.attempt, d.restore):
                if attempt is not None and attempt.state.is_terminal:
                    found[attempt.deployment_id] = attempt
        if after.status is not Status.CREATED and not (
            self._latest and self._latest.status is Status.CREATED
        ):
            for deployment_id, attempt in self._ends.items():
                assert found.get(deployment_id) == attempt
        self._ends = found

    def _check_promotion(self, before: Rollout, after: Rollout) -> None:
        """A stage ends by an operator, or on enough good evidence: too little never promotes."""
        ended = {number for number, stage in enumerate(before.stages) if stage.ended_s is not None}
        for number, stage in enumerate(after.stages):
            if stage.ended_s is None or number in ended or stage.overridden:
                continue
            if stage.size == 0:  # others took all of its devices, and of those behind it
                assert not any(counts[0] for counts in after.tally)
                continue
            assert stage.bake_started_s is not None
            assert stage.ended_s >= stage.bake_started_s + after.plan.stages[number].minimum_bake_s
            if after.kind is Kind.UPDATE:
                for metric, tally in zip(after.plan.gate.metrics, stage.evidence.canary.tallies, strict=True):
                    assert tally.total >= metric.minimum_samples
                    assert tally.bad < tally.total / 2

    def _check_pace(self, after: Rollout, orders: list[Given], now_s: float) -> None:
        plan = after.plan
        ways = ((True, plan.devices_per_minute), (False, plan.rollback_devices_per_minute))
        for forward, per_minute in ways:
            number = sum(order.forward is forward and not order.alone for order in orders)
            if per_minute is not None:
                self._paces[forward].add(number, per_minute, now_s)


class _Orders:
    """Orders one way, and how much time went by since the first; that a clock is set back takes none away."""

    def __init__(self) -> None:
        self._number = 0
        self._passed_s = 0.0
        self._last_s: float | None = None

    def add(self, number: int, per_minute: float, now_s: float) -> None:
        """Count orders, and check that they are not faster than they may be."""
        self._number += number
        if self._last_s is not None:
            self._passed_s += max(0.0, now_s - self._last_s)
        if self._number:
            self._last_s = now_s
            burst = max(1.0, per_minute * BURST_S / 60.0)
            assert self._number <= burst + self._passed_s * per_minute / 60.0 + 1e-6


def _goes_back(rollout: Rollout) -> bool:
    return rollout.status is Status.ROLLING_BACK or rollout.status.is_final


def _is_taken(deployment: Deployment) -> bool:
    """Whether another rollout took the device."""
    cause = deployment.attempt.cause
    return cause is not None and cause.code == CauseCode.SUPERSEDED


def _waits(deployment: Deployment) -> bool:
    return deployment.attempt.state is DeploymentState.QUEUED and deployment.attempt.ordered_s is None


def _is_newly_ordered(old: Attempt | None, new: Attempt) -> bool:
    if new.ordered_s is None:
        return False
    return old is None or old.ordered_s is None or old.deployment_id != new.deployment_id
