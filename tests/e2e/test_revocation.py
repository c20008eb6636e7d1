"""A version is revoked while real devices are on their way to it, and one that was away is ordered it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fleet.protocol.maintenance import DAYS
from tests.support.agent_device import Device
from tests.support.fleet import Invitation
from tests.support.hub import HubProcess
from tests.support.registrable import archive, small_bundle
from tests.support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]  # many starts, slow on a busy machine

MODEL = "digits"


@pytest.fixture(name="hub")
def hub_fixture(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub of a test's own, with three released versions."""
    with HubProcess(tmp_path / "hub", broker="embedded") as hub:
        for version in (1, 2, 3):
            hub.client.send(f"/models/{MODEL}/versions/bundle", [archive(small_bundle(version))])
            hub.client.post(f"/models/{MODEL}/versions/{version}/release")
        yield hub


@pytest.fixture(name="device")
def device_fixture(hub: HubProcess, tmp_path: Path) -> Iterator[Device]:
    """The hub's only device, which has said hello."""
    device = Device(Invitation(hub.url, hub.client.post("/enrolment-tokens")["token"]), tmp_path, "cam-0")
    try:
        device.start()
        eventually(lambda: any(row["hardware"] for row in hub.client.pages("/devices")), "it said hello")
        yield device
    finally:
        device.close()


def never_today() -> dict[str, Any]:
    """Return a maintenance window that is closed now, by the clock on the wall, and for days to come."""
    day = DAYS[(datetime.now().astimezone() + timedelta(days=3)).weekday()].value
    return {"days": [day], "from": "12:00", "to": "12:30"}


def roll_out(hub: HubProcess, version: int, **plan: Any) -> int:
    stage = {"devices": "all", "minimum_bake_s": 0.2, "maximum_bake_s": 3600.0}
    gate = {"metrics": [{"metric": "inference_errors", "margin": 0.1, "limit": 0.1}]}
    fixed = {"stages": [stage], "gate": gate, "deployment_timeout_s": 8 * 86400.0}
    body = {"model": MODEL, "version": version, "plan": {**fixed, **plan}}
    number: int = hub.client.post("/rollouts", body)["number"]
    hub.client.post(f"/rollouts/{number}/start")
    return number


def held(hub: HubProcess) -> dict[str, Any]:
    """Return what the only device says that it holds of the model; empty if it holds none."""
    (row,) = hub.client.pages("/devices")
    return next((state for state in row["models"] if state["model"] == MODEL), {})


def runs(hub: HubProcess, version: int) -> bool:
    """Whether the device has committed a version and has nothing else to do."""
    state = held(hub)
    quiet = (state.get("phase"), state.get("waiting_for")) == ("COMMITTED", None)
    return quiet and state["version"] == version


def part(hub: HubProcess, number: int) -> dict[str, Any]:
    """Return the device's part in a rollout."""
    (found,) = hub.client.pages(f"/rollouts/{number}/devices")
    return dict(found)


def bring(hub: HubProcess, version: int) -> None:
    """Have the device run a version, and end the rollout."""
    number = roll_out(hub, version)
    eventually(lambda: runs(hub, version), f"it runs version {version}", timeout_s=60.0)
    eventually(lambda: part(hub, number)["state"] == "SUCCEEDED", "the hub knows", timeout_s=30.0)
    hub.client.post(f"/rollouts/{number}/abort", {"reason": "enough was seen"})


def test_a_device_gives_up_what_is_revoked_and_refuses_what_it_is_ordered(
    hub: HubProcess, device: Device
) -> None:
    bring(hub, 1)

    number = roll_out(hub, 2, maintenance=never_today())
    eventually(lambda: held(hub)["waiting_for"], "it has version 2 and waits", timeout_s=60.0)
    told = hub.client.post(f"/models/{MODEL}/versions/2/revoke", {"reason": "It leaks."})
    assert (told["rollouts_held"], told["device_count"]) == ([number], 0)
    eventually(lambda: runs(hub, 1), "it has given version 2 up", timeout_s=30.0)
    eventually(lambda: part(hub, number)["restore_state"] == "SUCCEEDED", "the hub knows")
    assert part(hub, number)["state"] == "CANCELED"
    assert hub.client.get(f"/rollouts/{number}")["status"] == "PAUSED"
    hub.client.post(f"/rollouts/{number}/abort", {"reason": "revoked", "roll_back": True})
    assert hub.client.get(f"/rollouts/{number}")["status"] == "ROLLED_BACK"

    bring(hub, 3)
    device.kill()
    back = hub.client.post("/rollbacks", {"model": MODEL, "to": 1})["number"]
    hub.client.post(f"/models/{MODEL}/versions/1/revoke", {"reason": "It leaks too."})
    device.start()
    eventually(lambda: part(hub, back)["state"] == "REJECTED", "it refuses version 1", timeout_s=60.0)
    assert part(hub, back)["cause"]["code"] == "metadata_rejected"
    eventually(lambda: device.answering_version() == "3", "it answers with version 3", timeout_s=30.0)
    assert held(hub)["version"] == 3


def test_a_way_back_leads_past_what_is_revoked_and_waiting_for_it_outlives_the_hub(
    hub: HubProcess, device: Device, tmp_path: Path
) -> None:
    bring(hub, 1)
    bring(hub, 2)
    number = roll_out(hub, 3)
    eventually(lambda: part(hub, number)["state"] == "SUCCEEDED", "it runs version 3", timeout_s=60.0)
    told = hub.client.post(f"/models/{MODEL}/versions/2/revoke", {"reason": "It leaks."})
    assert (told["device_count"], told["commands"]) == (0, [])
    hub.client.post(f"/rollouts/{number}/abort", {"reason": "worse", "roll_back": True})
    hub.kill()
    hub.start()
    eventually(lambda: runs(hub, 1), "it runs version 1 again", timeout_s=60.0)
    ended = partial(hub.client.get, f"/rollouts/{number}")
    eventually(lambda: ended()["status"] == "ROLLED_BACK", "the hub knows", timeout_s=30.0)
    assert part(hub, number)["previous_version"] == 1

    bring(hub, 3)
    device.kill()
    said = tmp_path / "said.txt"
    command = [sys.executable, "-m", "hub", "rollback", MODEL, "--reason", "complaints"]
    access = {"MUSTER_URL": hub.url, "MUSTER_TOKEN": hub.token, "COLUMNS": "200"}
    with said.open("w") as out:
        waiting = subprocess.Popen(command, env=os.environ | access, stdout=out, stderr=out)
    eventually(lambda: "brings them back." in said.read_text(), "it says which", timeout_s=30.0)
    assert f"back to version 1 of {MODEL}: 1 from version 3." in said.read_text()
    hub.kill()
    hub.start()
    device.start()
    assert waiting.wait(60.0) == 0, said.read_text()
    eventually(lambda: runs(hub, 1), "it says so itself", timeout_s=30.0)
