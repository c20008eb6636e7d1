"""Devices that join while a continuous rollout is under way, with a real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause, InvalidPlan
from fleet.protocol.manifest import Manifest
from fleet.protocol.records import DeploymentReport
from fleet.rollout.events import Start
from fleet.rollout.plans.plan import Gate, Membership, Metric, MetricGate, Plan, Stage
from fleet.rollout.state.rollout import Status
from hub.rollouts import advancing
from hub.rollouts.shell import Rollouts
from hub.store.rows import Action
from hub.store.sqlite import SqliteStore
from tests.support.agent_bundles import MODEL, build
from tests.support.stores import add_device, incoming

BUNDLE = build(1)
GATE = Gate(metrics=(MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.1, limit=0.3),))


def plan(membership: Membership) -> Plan:
    """The cohort "early", then all."""
    return Plan(
        stages=(
            Stage(cohort='id like "early-*"', minimum_bake_s=1e6, maximum_bake_s=1e7),
            Stage(devices="all", minimum_bake_s=1e6, maximum_bake_s=1e7),
        ),
        gate=GATE,
        target='site == "lyon"',
        membership=membership,
    )


EVERYBODY = plan(Membership.CONTINUOUS).stages[1]


def released(_model: str, _version: int) -> tuple[str, Manifest]:
    return BUNDLE.sha256, BUNDLE.manifest


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with two early devices and a late one."""
    opened = SqliteStore(tmp_path / "hub.db")
    for device_id in ("early-1", "early-2", "late-1"):
        add_device(opened, device_id)
    yield opened
    opened.close()


def begun(store: SqliteStore, membership: Membership) -> tuple[Rollouts, int]:
    shell = Rollouts(store, released=released, on_orders=lambda: None)
    row = shell.create(MODEL, 1, plan=plan(membership), devices=None, seed=0)
    shell.act(row.state.number, Start("ann"))
    return shell, row.state.number


@pytest.mark.parametrize("membership", Membership)
def test_who_comes_to_match_is_put_into_the_right_stage_and_ordered_there(
    store: SqliteStore, membership: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advancing, "JOIN_LOOK_S", 0.0)
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
    monkeypatch.setattr(advancing, "JOIN_LOOK_S", 0.0)
    shell = Rollouts(store, released=released, on_orders=lambda: None)
    store.tag("early-1", add=["lab"], remove=[], action=Action(1.0, "ann", "Tagged."))
    everybody = msgspec.structs.replace(plan(Membership.CONTINUOUS), stages=(EVERYBODY,))
    for version, target, own in ((1, 'id like "late-*"', 0), (2, 'tag("lab")', priority)):
        reaching = msgspec.structs.replace(everybody, target=target, priority=own)
        row = shell.create(MODEL, version, plan=reaching, devices=None, seed=0)
        shell.act(row.state.number, Start("ann"))
    add_device(store, "late-2")
    store.tag("late-2", add=["lab"], remove=[], action=Action(2.0, "ann", "Tagged."))
    shell._advancing.advance(store.rollout(2 - priority))  # as when the other one cannot be
    shell.advance()
    assert store.claimed_by(MODEL, ["late-2"]) == {"late-2": 1 + priority}
