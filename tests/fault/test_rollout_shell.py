"""The hub dies at each write of a rollout, before or after the commit: the end is the same every time.

The store is real. What dies is the shell: at the chosen write it raises instead of going on, everything in
memory is thrown away, and a new shell opens the same file. Devices are simulated by what they would report
for the orders that the store holds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Conflict, InvalidPlan
from fleet.protocol.messages import ModelState, StateReport
from fleet.protocol.records import DeploymentReport, TelemetryWindow
from fleet.rollout.events import Start, Supersede
from fleet.rollout.plans.plan import Gate, Metric, MetricGate, Plan, Stage
from fleet.rollout.state.rollout import Absence, Status
from hub.heartbeat import Heartbeat
from hub.rollouts.absence import excuse_absence
from hub.rollouts.shell import Rollouts
from hub.store.rows import IncomingRecord, RolloutStep
from hub.store.sqlite import SqliteStore
from tests.support.agent_bundles import MODEL, Bundle, build
from tests.support.stores import add_device, incoming, say
from tests.support.thoroughness import ALL

DEVICES = [f"cam-{number}" for number in range(4)]
BUNDLES: dict[int, Bundle] = {1: build(1), 2: build(2)}
PLAN = Plan(
    stages=(
        Stage(devices=1, minimum_bake_s=0.0, maximum_bake_s=1e6),
        Stage(devices="all", minimum_bake_s=0.0, maximum_bake_s=1e6),
    ),
    gate=Gate(metrics=(MetricGate(metric=Metric.LABEL_ERRORS, margin=0.1, limit=0.3),)),
    deployment_timeout_s=1e6,
)


class Died(BaseException):
    """The process is no more."""


class DyingStore(SqliteStore):
    """A store whose user dies at one of the writes of a rollout.

    Args:
        path: The file.
        at: Number of the write, from 0; None for never.
        after_commit: Whether the write is committed before.
    """

    def __init__(self, path: Path, at: int | None, *, after_commit: bool) -> None:
        super().__init__(path)
        self._at, self._after_commit = at, after_commit
        self.writes = 0

    def apply_steps(self, steps: Sequence[RolloutStep]) -> None:
        """Store steps, and perhaps die."""
        dies = self.writes == self._at
        self.writes += 1
        if not dies or self._after_commit:
            super().apply_steps(steps)
        if dies:
            raise Died


class Scenario:
    """A fleet that follows orders, and a hub that may die once.

    Args:
        path: The store's file.
        wrong: How many of 200 labelled answers of the new version are wrong.
        dies_at: Number of the write at which the hub dies; None for never.
        after_commit: Whether that write is committed.
    """

    def __init__(
        self, path: Path, *, wrong: int, dies_at: int | None = None, after_commit: bool = False
    ) -> None:
        self._path = path
        self._wrong = wrong
        self._numbers = count(1)
        self._followed: dict[str, int] = {}
        self.store: SqliteStore = DyingStore(path, dies_at, after_commit=after_commit)
        for device_id in DEVICES:
            add_device(self.store, device_id)
        self._open()

    def run(self) -> dict[str, Any]:
        """Roll out version 1 and then version 2, and return how it all ended."""
        for version in (1, 2):
            row = self.rollouts.create(MODEL, version, plan=PLAN, devices=None, seed=0)
            self._survive(row.state.number, Start(by="ana"))
            for _ in range(60):
                if self.store.rollout(row.state.number).state.status.is_final:
                    break
                self._follow_orders()
                self._survive(row.state.number, None)
        return self._outcome()

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def _open(self) -> None:
        self.rollouts = Rollouts(self.store, released=self._released, on_orders=lambda: None)

    def _survive(self, number: int, start: Start | None) -> None:
        """Act or advance; after a death, open everything anew and do it again, as an operator would."""
        try:
            if start is None:
                self.rollouts.advance()
            else:
                self.rollouts.act(number, start)
        except Died:
            self.store.close()
            self.store = SqliteStore(self._path)
            self._open()
            try:
                self._survive(number, start)
            except Conflict:
                assert start is not None  # it had been started: the operator is told so

    def _released(self, model: str, version: int) -> tuple[str, Any]:
        assert model == MODEL
        return BUNDLES[version].sha256, BUNDLES[version].manifest

    def _follow_orders(self) -> None:
        """Let every device carry out its newest order, report it, and answer for a while."""
        now_s = time.time()
        for device_id in DEVICES:
            desired = self.store.desired(device_id)
            order = next(iter(desired.orders), None)
            records: list[IncomingRecord] = []
            if order is not None and desired.sequence != self._followed.get(device_id):
                self._followed[device_id] = desired.sequence
                for state in (DeploymentState.TRIAL, DeploymentState.SUCCEEDED):
                    report = DeploymentReport(now_s, order.deployment_id, MODEL, order.version, state)
                    records.append(incoming(device_id, next(self._numbers), report))
            if order is not None:
                wrong = self._wrong if order.version == 2 else 5
                records.append(incoming(device_id, next(self._numbers), _window(order.version, wrong, now_s)))
            models = (ModelState(MODEL, order.version, None, None, "COMMITTED", None),) if order else ()
            say(self.store, device_id, now_s, report=StateReport(now_s, desired.sequence, models))
            self.store.add_records(records)

    def _outcome(self) -> dict[str, Any]:
        numbers = [row.state.number for row in reversed(self.store.rollouts())]
        rollouts = [self.store.rollout(number).state for number in numbers]
        return {
            "statuses": [state.status for state in rollouts],
            "attempts": [[part.attempt.state for part in state.deployments] for state in rollouts],
            "restores": [
                [part.restore.state if part.restore else None for part in state.deployments]
                for state in rollouts
            ],
            "evidence": [[stage.evidence for stage in state.stages] for state in rollouts],
            "orders": {device_id: self.store.desired(device_id) for device_id in DEVICES},
        }


def _window(version: int, wrong: int, now_s: float) -> TelemetryWindow:
    return TelemetryWindow(
        started_at_s=now_s,
        ended_at_s=now_s,
        model=MODEL,
        version=version,
        manifest_sha256=BUNDLES[version].sha256,
        variant="onnx-fp32",
        predictions=200,
        labelled=200,
        correct=200 - wrong,
    )


def _outcome(
    path: Path, wrong: int, dies_at: int | None, *, after_commit: bool
) -> tuple[dict[str, Any], int]:
    scenario = Scenario(path, wrong=wrong, dies_at=dies_at, after_commit=after_commit)
    try:
        outcome = scenario.run()
        store = scenario.store
        return outcome, store.writes if isinstance(store, DyingStore) else 0
    finally:
        scenario.close()


@pytest.mark.thorough
@pytest.mark.parametrize("wrong", [4, 150], ids=["a good version", "a harmful version"])
def test_wherever_the_hub_dies_the_end_is_the_same(tmp_path: Path, wrong: int) -> None:
    expected, writes = _outcome(tmp_path / "never.db", wrong, None, after_commit=False)
    assert [status.value for status in expected["statuses"]] == [
        "SUCCEEDED",
        "SUCCEEDED" if wrong < 100 else "ROLLED_BACK",
    ]
    assert writes > 5
    for dies_at in range(writes) if ALL else range(wrong % 3, writes, 3):
        for after_commit in (False, True):
            path = tmp_path / f"{dies_at}-{after_commit}.db"
            outcome, _ = _outcome(path, wrong, dies_at, after_commit=after_commit)
            assert outcome == expected, f"the hub died at write {dies_at}, after the commit: {after_commit}"


def test_a_rollback_reaches_every_device_of_the_rollout_that_it_supersedes(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path / "hub.db", wrong=4)
    try:
        scenario.run()
        back = scenario.rollouts.roll_back(MODEL, 1, by="ana", reason="a test")
        assert {part.device_id for part in back.state.deployments} == set(DEVICES)
        scenario.rollouts.act(back.state.number, Supersede(by="ana", reason="make room"))
        forth = scenario.rollouts.create(MODEL, 2, plan=PLAN, devices=None, seed=0)
        scenario.rollouts.act(forth.state.number, Start(by="ana"))
        again = scenario.rollouts.roll_back(MODEL, 1, by="ana", reason="a test")
        assert scenario.store.rollout(forth.state.number).state.status is Status.ABORTED
        wanted = scenario.store.desired_versions(MODEL)
        assert set(wanted.values()) == {1}
        assert {part.previous_version for part in again.state.deployments} == {2}
        with pytest.raises(InvalidPlan):
            scenario.rollouts.roll_back(MODEL, 2, by="ana", reason="not back but forth")
    finally:
        scenario.close()


def test_a_hub_that_was_away_times_nobody_out(tmp_path: Path) -> None:
    now_s = time.time()
    heartbeat = Heartbeat(tmp_path / "alive", clock=lambda: now_s)
    assert heartbeat.silence().duration_s == 0.0
    heartbeat.beat()
    scenario = Scenario(tmp_path / "hub.db", wrong=4)
    try:
        row = scenario.rollouts.create(MODEL, 1, plan=PLAN, devices=None, seed=0)
        started = scenario.rollouts.act(row.state.number, Start(by="ana"))
        now_s += 60.0  # the hub's own clock stands still: it comes back as it went
        silence = heartbeat.silence()
        assert silence.duration_s == pytest.approx(60.0)
        excuse_absence(heartbeat, scenario.rollouts)
        assert heartbeat.silence().duration_s == 0.0
        state = scenario.store.rollout(row.state.number).state
        assert state.absence == Absence(*silence)
        assert state.stages[0].started_s == started.state.stages[0].started_s
    finally:
        scenario.close()
