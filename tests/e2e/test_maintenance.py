"""A plan's maintenance window and mode, from the hub's plan file to the swap on a real device."""

from __future__ import annotations

from datetime import datetime, timedelta
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
OWN = "The next maintenance window opens on"
"""Begins why a device waits for the window of its own settings, which it tells first."""


def in_days(days: int) -> str:
    """Return a day of the week by the clock on the wall, which the agent on this machine shares."""
    return DAYS[(datetime.now().astimezone() + timedelta(days=days)).weekday()].value


def roll_out(hub: HubProcess, **plan: Any) -> int:
    """Create and start a rollout of version 1 to everybody; return its number."""
    stage = {"devices": "all", "minimum_bake_s": 0.2, "maximum_bake_s": 60.0}
    gate = {"metrics": [{"metric": "inference_errors", "margin": 0.1, "limit": 0.1}]}
    fixed = {"stages": [stage], "gate": gate, "deployment_timeout_s": 8 * 86400.0}
    body = {"model": MODEL, "version": 1, "plan": {**fixed, **plan}}
    number: int = hub.client.post("/rollouts", body)["number"]
    hub.client.post(f"/rollouts/{number}/start")
    return number


def held(hub: HubProcess) -> dict[str, dict[str, Any]]:
    """Return what each device says that it holds of the model; those that hold none are left out."""
    states = {
        (row["device_id"], state["model"]): state
        for row in hub.client.pages("/devices")
        for state in row["models"]
    }
    return {device_id: state for (device_id, model), state in states.items() if model == MODEL}


def committed(hub: HubProcess) -> set[str]:
    """Return the devices that answer with version 1 and have committed it."""
    found = held(hub).items()
    return {name for name, state in found if state["version"] == 1 and state["phase"] == "COMMITTED"}


def explained(hub: HubProcess, rollout: int) -> dict[str, str]:
    """Return what the explanation says of devices that are ready and wait, each in a group of its own."""
    told = hub.client.get(f"/rollouts/{rollout}/explanation")["held_up_by"]
    return {
        group["examples"][0]["device_id"]: group["said"]
        for group in told
        if group["said"].startswith("ready, and waiting: ")
    }


def waiting(hub: HubProcess, beginning: str) -> set[str]:
    """Return the devices whose staged version waits for a reason that begins so."""
    found = held(hub).items()
    return {name for name, state in found if (state["waiting_for"] or "").startswith(beginning)}


def take_back(hub: HubProcess, number: int) -> None:
    """Abort a rollout and wait until nobody has the model, and the hub knows it."""
    hub.client.post(f"/rollouts/{number}/abort", {"reason": "a test", "roll_back": True})
    path = f"/rollouts/{number}"
    eventually(lambda: hub.client.get(path)["status"] == "ROLLED_BACK", "it is taken back", timeout_s=30.0)
    eventually(lambda: not held(hub), "the model is removed", timeout_s=30.0)


def test_devices_swap_inside_the_plans_window_alone_and_forced_ones_ask_not_even_their_own(
    tmp_path: Path,
) -> None:
    """Of two devices one has a window of its own, which is not today."""
    closed = in_days(3)
    own: list[dict[str, Any]] = [{}, {"maintenance_windows": [f"{closed} 12:00-12:30"]}]
    devices: list[Device] = []
    with HubProcess(tmp_path / "hub", broker="embedded") as hub:
        try:
            for number, settings in enumerate(own):
                token = hub.client.post("/enrolment-tokens")["token"]
                device = Device(Invitation(hub.url, token), tmp_path, f"cam-{number}", **settings)
                devices.append(device)
                device.start()
            eventually(lambda: all(row["hardware"] for row in hub.client.pages("/devices")), "all said hello")
            hub.client.send(f"/models/{MODEL}/versions/bundle", [archive(small_bundle())])
            hub.client.post(f"/models/{MODEL}/versions/1/release")
            both = {device.id for device in devices}

            other_day = roll_out(hub, maintenance={"days": [closed], "from": "12:00", "to": "12:30"})
            eventually(lambda: waiting(hub, "The ") == both, "both wait", timeout_s=30.0)
            assert waiting(hub, "The rollout's next maintenance window opens on") == {"cam-0"}
            assert not committed(hub)
            eventually(lambda: explained(hub, other_day).keys() == both, "both are named")
            said = explained(hub, other_day)
            assert said["cam-0"].startswith(
                "ready, and waiting: The rollout's next maintenance window opens on"
            )
            assert said["cam-1"].startswith(f"ready, and waiting: {OWN}")
            take_back(hub, other_day)

            always = {"days": [day.value for day in DAYS], "from": "00:00", "to": "24:00"}
            today = roll_out(hub, maintenance=always)
            eventually(lambda: committed(hub) == {"cam-0"}, "one runs it", timeout_s=30.0)
            eventually(lambda: waiting(hub, OWN) == {"cam-1"}, "the other waits", timeout_s=30.0)
            assert committed(hub) == {"cam-0"}
            take_back(hub, today)

            roll_out(hub, mode="forced")
            eventually(lambda: committed(hub) == both, "both run it", timeout_s=30.0)
        finally:
            for device in devices:
                device.close()
