"""Plans that compare inputs, with a real store: refused where versions count them in different bins."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fleet.drift.profile import FeatureCounts, FeatureReference, ReferenceProfile, numeric_reference
from fleet.protocol.errors import InvalidPlan, NotFound, VersionRevoked
from fleet.protocol.manifest import Manifest
from fleet.rollout.events import Abort, Start, Supersede
from fleet.rollout.plans.plan import Gate, Metric, MetricGate, Plan, Stage, default_gate
from fleet.rollout.state.rollout import Status
from hub.rollouts.shell import Rollouts
from hub.store.sqlite import SqliteStore
from tests.support.agent_bundles import MODEL, build
from tests.support.rollout_shell import store_with
from tests.support.stores import incoming, window

BUNDLE = build(1)


def reference(scale: float) -> FeatureReference:
    return numeric_reference("input.0", scale * np.linspace(0.0, 1.0, 200))


EDGES = {1: 1.0, 2: 1.0, 3: 2.0}
"""Versions 1 and 2 were trained on the same data."""


def released(_model: str, version: int) -> tuple[str, Manifest]:
    if version not in EDGES:
        raise NotFound(f"There is no version {version}.")
    profile = ReferenceProfile((reference(EDGES[version]),))
    return f"{version}" * 64, msgspec.structs.replace(BUNDLE.manifest, version=version, reference=profile)


@pytest.fixture(name="store")
def store_fixture(tmp_path: Path) -> Iterator[SqliteStore]:
    with store_with(tmp_path, [f"cam-{number}" for number in range(4)]) as store:
        yield store


@pytest.fixture
def shell(store: SqliteStore) -> Rollouts:
    return Rollouts(store, released=released, on_orders=lambda: None)


def plan(feature: str, *stages: Stage, priority: int = 0) -> Plan:
    metric = MetricGate(metric=Metric.INPUT_DRIFT, margin=0.1, feature=feature)
    errors = MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.1, limit=0.1)
    whole = Stage(devices="all", minimum_bake_s=1.0, maximum_bake_s=2.0)
    return Plan(stages=(*stages, whole), gate=Gate(metrics=(metric, errors)), priority=priority)


def everywhere(store: SqliteStore, shell: Rollouts, version: int) -> None:
    """Let all devices run a version, as far as the hub knows."""
    stages = (Stage(devices="all", minimum_bake_s=1.0, maximum_bake_s=2.0),)
    bringing = Plan(stages=stages, gate=default_gate(), priority=9)
    number = shell.create(MODEL, version, plan=bringing, devices=None, seed=1).state.number
    shell.act(number, Start("ann"))
    shell.act(number, Supersede("ann", "the rest does not matter"))
    assert set(store.desired_versions(MODEL).values()) == {version}


def counted(store: SqliteStore, number: int) -> tuple[int, int]:
    """Return how many values of the input, and how many answers, the controls have told of."""
    inputs, errors = store.rollout(number).state.stages[0].evidence.control.tallies
    return inputs.total, errors.total


def tell(store: SqliteStore, device_id: str, number: int, version: int, digest: str) -> None:
    """Store a window of ten answers of a device that runs a version."""
    edges = reference(1.0).edges
    assert edges is not None
    counts = FeatureCounts(cells=[10] + [0] * len(edges))
    said = msgspec.structs.replace(
        window(version=version),
        manifest_sha256=digest,
        started_at_s=time.time(),
        ended_at_s=time.time(),
        profile={"input.0": counts},
    )
    store.add_records([incoming(device_id, number, said)])


def run(shell: Rollouts, version: int) -> None:
    """Let the device of the first stage run a version, as far as the hub knows."""
    number = shell.create(MODEL, version, plan=None, devices=None, seed=1).state.number
    shell.act(number, Start("ann"))
    shell.act(number, Supersede("ann", "the rest does not matter"))


def test_inputs_in_the_same_bins_can_be_compared_and_others_are_refused(shell: Rollouts) -> None:
    first = shell.create(MODEL, 1, plan=plan("input.0"), devices=None, seed=1)  # nobody runs anything else
    shell.act(first.state.number, Abort("ann", "", roll_back=False))
    run(shell, 1)
    with pytest.raises(InvalidPlan, match="other bins in version 1, which devices run") as refused:
        shell.create(MODEL, 3, plan=plan("input.0"), devices=None, seed=1)
    assert refused.value.field == "gate.metrics[0].feature"
    with pytest.raises(InvalidPlan, match="no input that devices count"):
        shell.create(MODEL, 2, plan=plan("input.7"), devices=None, seed=1)
    assert shell.create(MODEL, 2, plan=plan("input.0"), devices=None, seed=1).state.plan == plan("input.0")


def test_a_fleet_that_came_to_run_another_version_since_is_found_at_the_start(
    store: SqliteStore, shell: Rollouts
) -> None:
    everywhere(store, shell, 1)
    drawn_up = shell.create(MODEL, 2, plan=plan("input.0"), devices=None, seed=1).state.number
    everywhere(store, shell, 3)
    with pytest.raises(InvalidPlan, match="other bins in version 3, which devices run"):
        shell.act(drawn_up, Start("ann"))
    assert store.rollout(drawn_up).state.status is Status.CREATED
    assert set(store.desired_versions(MODEL).values()) == {3}
    everywhere(store, shell, 1)
    assert shell.act(drawn_up, Start("ann")).state.status is Status.RUNNING


@pytest.mark.parametrize(
    ("version", "digest", "is_compared"),
    [(1, "1", True), (3, "3", False), (1, "3", False), (9, "9", False)],
    ids=["same bins", "other bins", "another bundle", "unknown"],
)
def test_a_control_whose_bins_are_others_says_nothing_of_inputs_and_all_else(
    store: SqliteStore, shell: Rollouts, version: int, digest: str, is_compared: bool
) -> None:
    everywhere(store, shell, 1)
    canary = Stage(devices=1, minimum_bake_s=1e6, maximum_bake_s=1e7)
    number = shell.create(MODEL, 2, plan=plan("input.0", canary), devices=None, seed=1).state.number
    shell.act(number, Start("ann"))
    waiting = next(p.device_id for p in store.rollout(number).state.deployments if p.stage == 1)
    tell(store, waiting, 1, 1, "1" * 64)
    shell.advance()
    assert counted(store, number) == (10, 10)
    tell(store, waiting, 2, version, digest * 64)
    shell.advance()
    assert counted(store, number) == (20 if is_compared else 10, 20)


def test_controls_of_a_version_that_was_revoked_are_compared_on(store: SqliteStore) -> None:
    revoked: set[int] = set()

    def not_revoked(model: str, version: int) -> tuple[str, Manifest]:
        if version in revoked:
            raise VersionRevoked(f"Version {version} was revoked.")
        return released(model, version)

    shell = Rollouts(store, released=not_revoked, known=released, on_orders=lambda: None)
    everywhere(store, shell, 1)
    canary = Stage(devices=1, minimum_bake_s=1e6, maximum_bake_s=1e7)
    number = shell.create(MODEL, 2, plan=plan("input.0", canary), devices=None, seed=1).state.number
    shell.act(number, Start("ann"))
    revoked.add(1)
    waiting = next(p.device_id for p in store.rollout(number).state.deployments if p.stage == 1)
    tell(store, waiting, 1, 1, "1" * 64)
    shell.advance()
    assert counted(store, number) == (10, 10)


def test_inputs_of_a_version_that_is_not_released_any_more_cannot_be_compared(
    shell: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(shell, 1)
    monkeypatch.delitem(EDGES, 1)
    with pytest.raises(InvalidPlan, match="There is no version 1"):
        shell.create(MODEL, 2, plan=plan("input.0"), devices=None, seed=1)
