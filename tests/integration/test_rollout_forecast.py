"""The forecast with a real store: from what devices told to the dry run and to the rollout created."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fleet.protocol.records import TelemetryWindow
from fleet.rollout.engine import create
from fleet.rollout.events import Abort, Start
from fleet.rollout.plans.plan import Gate, Metric, MetricGate, Plan, Stage
from fleet.rollout.state.rollout import Kind
from hub.api.preview_schemas import PreviewOut
from hub.rollouts.explaining import explanation_of
from hub.rollouts.shell import Rollouts
from hub.store.rows import OrderChange
from hub.store.sqlite import SqliteStore
from tests.support.agent_bundles import MODEL
from tests.support.differing_fleet import HOUR_S, START_S, DifferingFleet
from tests.support.rollout_shell import released, store_with
from tests.support.rollouts import OLD
from tests.support.rollups import DeviceWindow, keep_windows
from tests.support.stores import order

FLEET = DifferingFleet(24, Metric.INFERENCE_ERRORS, {0: 0.98, 1: 0.02}, correlation=0.05, per_minute=30)
PLAN = Plan(
    stages=(
        Stage(name="canary", devices=6, minimum_bake_s=60.0, maximum_bake_s=3600.0),
        Stage(devices="all", minimum_bake_s=60.0, maximum_bake_s=3600.0),
    ),
    gate=Gate(metrics=(MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.01, limit=0.5),)),
)
UNSURE = MetricGate(metric=Metric.UNSURE, margin=0.2, limit=0.5, threshold=0.5)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with devices that run version 1."""
    other = create(
        number=1,
        kind=Kind.ROLLBACK,
        model="another",
        version=1,
        manifest_sha256=OLD,
        plan=Plan(stages=(Stage(devices="all", minimum_bake_s=0, maximum_bake_s=0),), gate=Gate()),
        seed=0,
        devices=dict.fromkeys(FLEET.names),
        now_s=0.0,
    )
    orders = [OrderChange(name, MODEL, order(1, model=MODEL)) for name in FLEET.names]
    with store_with(tmp_path, FLEET.names) as opened:
        row = opened.create_rollout(lambda number: msgspec.structs.replace(other, number=number), 0.0)
        opened.apply_step(row.state, previous=row.state, position=0, changes=orders)
        yield opened


@pytest.fixture
def rollouts(store: SqliteStore) -> Rollouts:
    return Rollouts(store, released=released, on_orders=lambda: None, clock=lambda: START_S)


def tell(store: SqliteStore, version: int, begun_s: float) -> None:
    """Let every device tell of an hour."""
    rng = np.random.default_rng(1)
    drawn = FLEET.drawn(rng)

    def window(place: int) -> TelemetryWindow:
        told = FLEET.window(rng, drawn[place], begun_s, HOUR_S - 1.0, OLD)
        return msgspec.structs.replace(told, model=MODEL, version=version)

    keep_windows(store, [DeviceWindow(name, {}, window(n)) for n, name in enumerate(FLEET.names)])


def test_a_stage_that_can_prove_nothing_is_told_before_and_kept_with_the_rollout(
    store: SqliteStore, rollouts: Rollouts
) -> None:
    tell(store, 1, START_S - 2 * HOUR_S)
    told = rollouts.preview(MODEL, 2, plan=PLAN, devices=None, seed=0)
    metric = told.forecast[0].metrics[0]
    assert metric.devices == 24
    assert metric.share == pytest.approx(0.02, rel=0.9)
    assert metric.answers_per_minute == pytest.approx(30, rel=0.05)
    assert told.warnings[0].startswith("Stage 1 (canary): 6 devices cannot prove a margin of 1.0 points")
    answer = PreviewOut.of(told)
    assert [stage.stage for stage in answer.forecast] == [1, 2]
    assert answer.forecast[0].metrics[0].expectation == "unlikely"

    row = rollouts.create(MODEL, 2, plan=PLAN, devices=None, seed=0)
    number = row.state.number
    kept = store.rollout(number).state
    assert tuple(one.text for one in kept.warned) == told.warnings
    assert kept.decisions == 0
    assert explanation_of(store, kept, START_S).warnings == told.warnings
    rollouts.act(number, Start("ann"))
    assert explanation_of(store, store.rollout(number).state, START_S).warnings == told.warnings
    rollouts.act(number, Abort("ann", "", roll_back=False))
    ended = store.rollout(number).state
    assert explanation_of(store, ended, START_S).warnings == ()
    assert tuple(one.text for one in ended.warned) == told.warnings


@pytest.mark.parametrize(
    ("version", "begun_s"), [(3, START_S - 2 * HOUR_S), (1, START_S - 48 * HOUR_S)], ids=["other", "old"]
)
def test_telemetry_of_other_versions_and_other_days_tells_nothing(
    store: SqliteStore, rollouts: Rollouts, version: int, begun_s: float
) -> None:
    tell(store, version, begun_s)
    told = rollouts.preview(MODEL, 2, plan=PLAN, devices=None, seed=0)
    assert {stage.expectation for stage in told.forecast} == {"unknown"}
    assert told.warnings == ()
    assert "nothing can be forecast of inference errors" in told.forecast[0].metrics[0].sentence
    assert rollouts.create(MODEL, 2, plan=PLAN, devices=None, seed=0).state.warned == ()


def test_metrics_of_profiles_are_unknown_where_no_profile_was_told(
    store: SqliteStore, rollouts: Rollouts
) -> None:
    tell(store, 1, START_S - 2 * HOUR_S)
    both = msgspec.structs.replace(PLAN, gate=Gate(metrics=(*PLAN.gate.metrics, UNSURE)))
    told = rollouts.preview(MODEL, 2, plan=both, devices=None, seed=0)
    assert [metric.expectation for metric in told.forecast[0].metrics] == ["unlikely", "unknown"]
