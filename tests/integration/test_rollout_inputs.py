"""Plans that compare inputs, with a real store: refused where versions count them in different bins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fleet.drift.profile import FeatureReference, ReferenceProfile, numeric_reference
from fleet.protocol.errors import InvalidPlan, NotFound
from fleet.protocol.manifest import Manifest
from fleet.rollout.events import Abort, Start, Supersede
from fleet.rollout.plans.plan import Gate, Metric, MetricGate, Plan, Stage
from hub.rollouts.shell import Rollouts
from hub.store.sqlite import SqliteStore
from tests.support.agent_bundles import MODEL, build
from tests.support.stores import add_device

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


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Rollouts]:
    store = SqliteStore(tmp_path / "hub.db")
    for number in range(4):
        add_device(store, f"cam-{number}")
    yield Rollouts(store, released=released, on_orders=lambda: None)
    store.close()


def plan(feature: str) -> Plan:
    metric = MetricGate(metric=Metric.INPUT_DRIFT, margin=0.1, feature=feature)
    return Plan(
        stages=(Stage(devices="all", minimum_bake_s=1.0, maximum_bake_s=2.0),), gate=Gate(metrics=(metric,))
    )


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


def test_inputs_of_a_version_that_is_not_released_any_more_cannot_be_compared(
    shell: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(shell, 1)
    monkeypatch.delitem(EDGES, 1)
    with pytest.raises(InvalidPlan, match="There is no version 1"):
        shell.create(MODEL, 2, plan=plan("input.0"), devices=None, seed=1)
