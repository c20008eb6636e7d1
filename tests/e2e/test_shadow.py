"""A version in the shadow of the one before it, from the plan to the operator, on a real hub and device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.agent_bundles import MODEL, expected_class
from tests.support.agent_device import Device
from tests.support.fleet import Invitation
from tests.support.hub import HubProcess
from tests.support.registrable import archive, small_bundle, write
from tests.support.waiting import eventually

PLAN = {
    "stages": [{"devices": "all", "minimum_bake_s": 0.2, "maximum_bake_s": 600.0}],
    "gate": {"metrics": [{"metric": "inference_errors", "margin": 0.1, "limit": 0.1}]},
    "deployment_timeout_s": 60.0,
}


def roll_out(hub: HubProcess, folder: Path, version: int, *, shadow_s: int) -> int:
    """Start a rollout by the command line and return its number."""
    plan = write(folder / f"plan-{version}.json", json.dumps({**PLAN, "shadow_s": shadow_s}).encode())
    shown = hub.muster("rollout", "create", MODEL, str(version), "--plan", str(plan), "--start", "--json")
    return int(json.loads(shown)["number"])


def wait_for(hub: HubProcess, number: int, state: str) -> None:
    """Wait until the one device of a rollout is in a state."""
    eventually(lambda: hub.client.get(f"/rollouts/{number}")["counts"] == {state: 1}, state, timeout_s=30.0)


def shadow(hub: HubProcess, number: int) -> dict[str, Any]:
    """Return what a rollout's device reported of its shadow."""
    told: dict[str, Any] = hub.client.get(f"/rollouts/{number}/shadow")
    return told


@pytest.mark.long
def test_what_a_version_does_in_the_shadow_is_told_before_it_answers(tmp_path: Path) -> None:
    with HubProcess(tmp_path / "hub", broker="embedded") as hub:
        token = hub.client.post("/enrolment-tokens")["token"]
        device = Device(Invitation(hub.url, token), tmp_path, "cam-0")
        try:
            device.start()
            eventually(lambda: hub.client.get("/devices/cam-0")["online"], "the device is there")
            for version in (1, 2):
                hub.client.send(f"/models/{MODEL}/versions/bundle", [archive(small_bundle(version))])
                hub.client.post(f"/models/{MODEL}/versions/{version}/release")
            first = roll_out(hub, tmp_path, 1, shadow_s=60)  # there is nothing to compare it with
            wait_for(hub, first, "SUCCEEDED")
            hub.client.post(f"/rollouts/{first}/promote", {"reason": "the first", "stage": 1})
            assert hub.client.get(f"/rollouts/{first}/shadow")["compared"] == 0

            second = roll_out(hub, tmp_path, 2, shadow_s=60)
            wait_for(hub, second, "SHADOW")
            samples = np.random.default_rng(3).normal(size=(30, 4)).round(3).tolist()
            assert {device.infer(sample).body["model_version"] for sample in samples} == {"1"}
            eventually(lambda: shadow(hub, second)["compared"] == 30, "all is told", timeout_s=30.0)
            told = shadow(hub, second)
            differ = sum(expected_class(1, sample) != expected_class(2, sample) for sample in samples)
            assert (told["disagreed"], told["devices"], told["errors"]) == (differ, 1, 0)
            shown = hub.muster("rollout", "status", str(second))
            assert f"shadow: {differ} of 30 samples disagree" in shown
            hub.client.post(f"/rollouts/{second}/abort", {"reason": "it disagrees too often"})
            eventually(lambda: hub.client.get(f"/rollouts/{second}")["status"] == "ABORTED", timeout_s=30.0)
            assert device.answering_version() == "1"
            assert hub.client.get("/fleet/dead-letters")["items"] == []
        finally:
            device.close()
