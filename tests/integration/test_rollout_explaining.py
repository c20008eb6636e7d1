"""Explanations with a real store: what devices said last is what is told of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.messages import ModelState, StateReport
from fleet.rollout.explanation.reasons import Reason
from fleet.rollout.state.columns import Deployment
from hub.rollouts.explaining import explanation_of
from hub.store.sqlite import SqliteStore
from tests.support.rollouts import OLD, Campaign, plan
from tests.support.stores import add_device, say


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "hub.db")
    yield opened
    opened.close()


def heartbeat(store: SqliteStore, part: Deployment, waiting_for: str | None, deployment_id: str) -> None:
    """Let a device say what it holds of two models."""
    staged = ModelState("digits", 1, OLD, "onnx", "STAGED", deployment_id, waiting_for)
    other = ModelState("another", 1, OLD, "onnx", "STAGED", "r1-0f", "Nothing of this is about digits.")
    say(store, part.device_id, 1000.0, online=True, report=StateReport(1000.0, 0, (other, staged)))


def test_what_devices_that_are_ready_wait_for_is_what_they_said_of_this_order(store: SqliteStore) -> None:
    campaign = Campaign(plan("50%", "all"))
    for part in campaign.rollout.deployments:
        add_device(store, part.device_id)
    held, opens, before, quiet = campaign.cohort(0)
    for part in (held, opens, before, quiet):
        campaign.report(part, DeploymentState.STAGED)
    heartbeat(store, held, "Updates are held on the device:\x1b[2J\n surgery", held.attempt.deployment_id)
    heartbeat(store, opens, "The next maintenance window opens soon.", opens.attempt.deployment_id)
    heartbeat(store, before, "The battery is low.", "r6-2f")
    heartbeat(store, quiet, None, quiet.attempt.deployment_id)
    found = {
        (group.reason, group.said): [one.device_id for one in group.examples]
        for group in explanation_of(store, campaign.rollout, campaign.now_s).held_up_by
    }
    assert found == {
        (Reason.WAITS, "ready, and waiting: Updates are held on the device: [2J surgery."): [held.device_id],
        (Reason.WAITS, "ready, and waiting: The next maintenance window opens soon."): [opens.device_id],
        (Reason.INSTALLING, "installing"): [before.device_id, quiet.device_id],
    }


def test_silent_controls_are_told_with_when_they_were_last_heard_of(store: SqliteStore) -> None:
    campaign = Campaign(plan("75%", "all"))
    for part in campaign.rollout.deployments:
        add_device(store, part.device_id)
    campaign.succeed(0)
    seen, never = campaign.cohort(1)
    say(store, seen.device_id, campaign.now_s - 7200.0, online=False)
    campaign.wait(10.0)
    groups = explanation_of(store, campaign.rollout, campaign.now_s - 10.0).held_up_by
    (controls,) = [group for group in groups if group.reason is Reason.SILENT_CONTROL]
    assert {one.device_id: one.detail for one in controls.examples} == {
        seen.device_id: "offline, last heard of 2 h ago",
        never.device_id: "offline, never heard of",
    }
