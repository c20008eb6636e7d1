"""A version that disagrees with the active one in the shadow, from the store of a hub to its rollback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fleet.protocol.records import ShadowReport
from fleet.rollout.events import Start
from fleet.rollout.plans.plan import Gate, Metric, MetricGate, Plan, Stage
from fleet.rollout.state.rollout import Status
from hub.rollouts.shell import Rollouts
from hub.store.sqlite import SqliteStore
from tests.support.agent_bundles import MODEL
from tests.support.rollout_shell import released, store_with
from tests.support.stores import CAPABILITIES, greeting, incoming, say

CAMS = [f"cam-{number}" for number in range(4)]
ABLE = msgspec.structs.replace(CAPABILITIES, obeys_wishes=True)
SHADOW = MetricGate(metric=Metric.SHADOW_DISAGREEMENT, limit=0.1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with store_with(tmp_path, CAMS) as opened:
        yield opened


def test_disagreement_takes_a_version_back_before_it_answers(store: SqliteStore) -> None:
    for device_id in CAMS:
        say(store, device_id, 2.0, hello=greeting(ABLE))
    plan = Plan(
        stages=(Stage(devices="all", minimum_bake_s=1.0, maximum_bake_s=1e6),),
        gate=Gate(metrics=(SHADOW,)),
        shadow_s=600,
    )
    shell = Rollouts(store, released=released, on_orders=lambda: None)
    number = shell.create(MODEL, 2, plan=plan, devices=None, seed=1).state.number
    deployments = list(shell.act(number, Start("ann")).state.deployments)
    for part, disagreed in zip(deployments, (500, 450, 550, 480), strict=True):
        report = ShadowReport(
            started_at_s=0.0,
            ended_at_s=60.0,
            deployment_id=part.attempt.deployment_id,
            model=MODEL,
            active_version=1,
            version=2,
            manifest_sha256=released(MODEL, 2)[0],
            compared=1000,
            disagreed=disagreed,
        )
        store.add_records([incoming(part.device_id, 1, report)])
    shell.advance()
    state = store.rollout(number).state
    assert state.status is Status.ROLLING_BACK
    assert state.cause is not None
    assert "shadow disagreement 49.5% of 4,000 in the shadow" in state.cause.detail
    assert msgspec.json.decode(msgspec.json.encode(state.verdict))["parts"] == 1
