"""Several rollouts of a model at a time, with a real store: who has which device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Conflict, InvalidPlan
from fleet.rollout.events import Abort, Start, Supersede
from fleet.rollout.obstacles import Obstacle
from fleet.rollout.plans.plan import JudgedBy, Membership, Plan, Stage
from fleet.rollout.state.rollout import CauseCode, Status
from hub.rollouts import joiners
from hub.rollouts.shell import Rollouts
from hub.store.sqlite import SqliteStore
from tests.support.agent_bundles import MODEL
from tests.support.rollout_shell import EVERYBODY, GATE, released, store_with
from tests.support.stores import add_device

CAMS = [f"cam-{number}" for number in range(6)]


def plan(*devices: int | str, priority: int = 0, **fields: Any) -> Plan:
    """Return a plan that waits for ever in every stage."""
    stages = tuple(msgspec.structs.replace(EVERYBODY, devices=d) for d in devices or ("all",))
    return Plan(stages=stages, gate=GATE, priority=priority, **fields)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with six devices."""
    with store_with(tmp_path, CAMS) as opened:
        yield opened


@pytest.fixture
def shell(store: SqliteStore) -> Rollouts:
    return Rollouts(store, released=released, on_orders=lambda: None)


def create(shell: Rollouts, devices: list[str] | None, the_plan: Plan, version: int = 1) -> int:
    return shell.create(MODEL, version, plan=the_plan, devices=devices, seed=0).state.number


def states(store: SqliteStore, number: int) -> dict[str, DeploymentState]:
    return {part.device_id: part.attempt.state for part in store.rollout(number).state.deployments}


def test_rollouts_of_one_model_with_devices_of_their_own_are_under_way_together(
    store: SqliteStore, shell: Rollouts
) -> None:
    first, second = create(shell, CAMS[:3], plan()), create(shell, CAMS[3:], plan(), version=2)
    for number in (first, second):
        shell.act(number, Start("ann"))
    shell.advance()
    assert store.desired_versions(MODEL) == dict.fromkeys(CAMS[:3], 1) | dict.fromkeys(CAMS[3:], 2)
    assert store.claimed_by(MODEL, CAMS) == dict.fromkeys(CAMS[:3], first) | dict.fromkeys(CAMS[3:], second)
    with pytest.raises(InvalidPlan, match=r"^All 3 devices run version 1 already\.$"):
        create(shell, CAMS[:3], plan())


def test_two_of_equal_priority_that_reach_one_device_are_refused_when_written(
    store: SqliteStore, shell: Rollouts
) -> None:
    first = create(shell, CAMS, plan())
    for _ in range(2):  # the first one only created, and then under way
        with pytest.raises(InvalidPlan, match=rf"rollout {first} .* 2 devices \(cam-1, cam-2\)") as refused:
            create(shell, ["cam-1", "cam-2"], plan(), version=2)
        assert refused.value.field == "priority"
        assert refused.value.remedy
        if store.rollout(first).state.status is Status.CREATED:
            shell.act(first, Start("ann"))
    told = shell.preview(MODEL, 2, plan=plan(), devices=CAMS[:1], seed=0)
    assert told.obstacles == {Obstacle.CLAIMED: 1}
    assert told.refused.startswith(f"priority: rollout {first} of the same priority, 0, reaches 1 device")
    assert (told.devices, told.forecast, told.warnings, told.expected_s) == (0, (), (), 0.0)
    none_left = shell.preview(MODEL, 2, plan=plan(priority=5), devices=CAMS, seed=0)
    assert none_left.refused.startswith(f"priority: rollout {first} keeps every device of this one")
    assert none_left.remedy
    assert (none_left.devices, none_left.forecast, none_left.stages[0].expected_s) == (0, (), 0.0)
    shell.act(first, Abort("ann", "", roll_back=False))
    while not store.rollout(first).state.status.is_final:
        shell.act(first, Supersede("ann", ""))
    create(shell, ["cam-1"], plan(), version=2)


def test_a_higher_priority_takes_what_the_lower_has_not_ordered(store: SqliteStore, shell: Rollouts) -> None:
    low = create(shell, None, plan(2, "all"))
    high = create(shell, None, plan(priority=5), version=2)
    assert store.claimed_by(MODEL, CAMS) == {}
    shell.act(low, Start("ann"))
    assert store.claimed_by(MODEL, CAMS) == dict.fromkeys(CAMS, low)
    ordered = set(store.desired_versions(MODEL))
    assert len(ordered) == 2
    shell.act(high, Start("ann"))
    assert states(store, high).keys() == set(CAMS) - ordered
    assert "Without 2 devices" in store.rollout(high).state.history[0].text
    lost = {part.device_id: part.attempt for part in store.rollout(low).state.deployments}
    for device_id, attempt in lost.items():
        taken = device_id not in ordered
        assert (attempt.state is DeploymentState.CANCELED) is taken
        assert not taken or (attempt.cause is not None and attempt.cause.code == CauseCode.SUPERSEDED)
    assert store.claimed_by(MODEL, CAMS) == {
        device_id: low if device_id in ordered else high for device_id in CAMS
    }
    assert store.desired_versions(MODEL) == {
        device_id: 1 if device_id in ordered else 2 for device_id in CAMS
    }
    shell.act(low, Abort("ann", "", roll_back=True))
    assert set(store.desired_versions(MODEL).values()) == {2}, "the lower one leads back its own alone"


def test_a_lower_priority_starts_without_what_the_higher_has(store: SqliteStore, shell: Rollouts) -> None:
    low = create(shell, None, plan(1, "all"))
    high = create(shell, CAMS[:4], plan(priority=5), version=2)
    shell.act(high, Start("ann"))
    told = shell.preview(MODEL, 3, plan=plan(1, "all", priority=1), devices=None, seed=0)
    assert (told.devices, told.left_out, told.obstacles) == (2, 0, {Obstacle.CLAIMED: 4})
    assert {name for stage in told.stages for name in stage.named} == set(CAMS[4:])
    assert [stage.devices for stage in told.stages] == [1, 1]
    told = shell.preview(MODEL, 3, plan=plan(3, "all", priority=1), devices=None, seed=0)
    assert told.devices == 2
    assert told.misfit == (
        "Without what other rollouts keep, it could not start. "
        "Stage 1: 3 devices are asked for; the rollout has 2."
    )
    shell.act(low, Start("ann"))
    assert states(store, low).keys() == set(CAMS[4:])
    with pytest.raises(InvalidPlan, match="keeps every device") as refused:
        create(shell, CAMS[:2], plan(priority=-1))
    assert refused.value.field == "priority"


def test_a_plan_that_fits_no_more_without_the_devices_of_others_is_refused_at_the_start(
    store: SqliteStore, shell: Rollouts
) -> None:
    staged = Plan(
        stages=(Stage(devices="all", minimum_bake_s=1.0, maximum_bake_s=2.0, minimum_devices=5),), gate=GATE
    )
    low, high = create(shell, None, staged), create(shell, CAMS[:4], plan(priority=5), version=2)
    shell.act(high, Start("ann"))
    with pytest.raises(InvalidPlan, match="minimum_devices"):
        shell.act(low, Start("ann"))
    assert store.rollout(low).state.status is Status.CREATED
    assert store.claimed_by(MODEL, CAMS) == dict.fromkeys(CAMS[:4], high)


def test_a_rollback_puts_all_aside_and_what_starts_meanwhile_goes_without_its_devices(
    store: SqliteStore, shell: Rollouts
) -> None:
    first, second = create(shell, CAMS[:3], plan(), version=2), create(shell, CAMS[3:], plan(), version=3)
    waiting = create(shell, None, plan(priority=1000), version=3)
    for number in (first, second):
        shell.act(number, Start("ann"))
    back = shell.roll_back(MODEL, 1, by="ann", reason="trouble").state.number
    assert {store.rollout(n).state.status for n in (first, second)} == {Status.ABORTED}
    assert store.claimed_by(MODEL, CAMS) == dict.fromkeys(CAMS, back)
    with pytest.raises(Conflict, match="keeps every device"):
        shell.act(waiting, Start("ann"))


def test_who_joins_a_continuous_rollout_is_free(
    store: SqliteStore, shell: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joiners, "JOIN_LOOK_S", 0.0)
    joining = plan(target='site == "lyon"', membership=Membership.CONTINUOUS, priority=9)
    follows = create(shell, None, joining)
    shell.act(follows, Start("ann"))
    add_device(store, "late-1")
    add_device(store, "late-2")
    other = create(shell, ["late-1"], plan(), version=2)
    shell.act(other, Start("ann"))
    shell.advance()
    assert states(store, follows).keys() == {*CAMS, "late-2"}
    assert store.desired_versions(MODEL)["late-1"] == 2
    shell.act(other, Supersede("ann", ""))
    shell.advance()
    assert states(store, follows).keys() == {*CAMS, "late-1", "late-2"}


def test_a_plan_that_fits_no_more_when_it_starts_is_refused_whatever_the_reason(
    store: SqliteStore, shell: Rollouts
) -> None:
    judged = Stage(cohort='not id == "cam-5"', minimum_bake_s=0.0, maximum_bake_s=10.0)
    held_back = Stage(devices="all", minimum_bake_s=0.0, maximum_bake_s=10.0, judged_by=JudgedBy.INSTALLS)
    number = create(shell, CAMS, Plan(stages=(judged, held_back), gate=GATE))
    other = create(shell, CAMS[:4], plan(priority=1))
    shell.act(other, Start("ann"))
    shell.act(other, Supersede("ann", "they have it"))
    assert store.desired_versions(MODEL) == dict.fromkeys(CAMS[:4], 1)
    with pytest.raises(InvalidPlan, match="judged by installs alone and adds 1 of 2 devices"):
        shell.act(number, Start("ann"))
    assert store.rollout(number).state.status is Status.CREATED
