"""A small real fleet for tests: a hub process, agent processes, and cameras that use the agents."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, NamedTuple

from hub.demo.cameras import Camera
from tests.support.agent_device import Device
from tests.support.digits import field_part, flattened
from tests.support.hub import HubProcess
from tests.support.waiting import eventually

MODEL = "digits"
QUICK = {"minimum_bake_s": 0.2, "maximum_bake_s": 600.0}
GATE = {
    "maximum_failed_share": 0.0,
    "metrics": [{"metric": "label_errors", "margin": 0.1, "limit": 0.4, "minimum_samples": 100}],
}


class Invitation(NamedTuple):
    """What a device needs to enrol."""

    url: str
    token: str


class Fleet:
    """Devices of one hub, with a camera on each.

    Args:
        hub: Runs.
        folder: Where devices keep their state.
        count: How many devices there are.
    """

    def __init__(self, hub: HubProcess, folder: Path, count: int) -> None:
        self.hub = hub
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cameras", daemon=True)
        self._shooting: list[Any] = []
        self.devices: dict[str, Device] = {}
        self.cameras: dict[str, Camera] = {}
        for number in range(count):
            token = hub.client.post("/enrolment-tokens")["token"]
            device = Device(Invitation(hub.url, token), folder, f"cam-{number}")
            self.devices[device.id] = device
            self.cameras[device.id] = Camera(device.socket, MODEL, flattened(field_part()), seed=number)

    def start(self) -> None:
        """Start every agent and camera."""
        self._thread.start()
        for device in self.devices.values():
            device.start()
        for camera in self.cameras.values():
            self._shooting.append(asyncio.run_coroutine_threadsafe(camera.run(), self._loop))

    def stop_cameras(self) -> None:
        """Stop the cameras; what they asked was answered, and what went wrong with one is raised."""
        for camera in self.cameras.values():
            camera.is_stopped = True
        shooting, self._shooting = self._shooting, []
        for shot in shooting:
            shot.result(timeout=30)

    def close(self) -> None:
        """End everything but the hub."""
        try:
            self.stop_cameras()
        finally:
            if self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(10)
            self._loop.close()
            for device in self.devices.values():
                device.close()

    def release(self, **training: Any) -> int:
        """Train and release the next version of the model; return its number."""
        return self.hub.train_and_release(MODEL, **{"seed": 7, **training})

    def roll_out(self, version: int, *devices: int | str) -> int:
        """Create and start a rollout in stages; return its number."""
        plan = {
            "stages": [{"devices": reach, **QUICK} for reach in devices],
            "gate": GATE,
            "deployment_timeout_s": 600.0,
        }
        body = {"model": MODEL, "version": version, "plan": plan}
        number: int = self.hub.client.post("/rollouts", body)["number"]
        self.hub.client.post(f"/rollouts/{number}/start")
        return number

    def rollout(self, number: int) -> dict[str, Any]:
        """Return a rollout as the API shows it."""
        answer: dict[str, Any] = self.hub.client.get(f"/rollouts/{number}")
        return answer

    def parts(self, rollout: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the devices of a rollout with their parts."""
        return list(self.hub.client.pages(f"/rollouts/{rollout['number']}/devices"))

    def wait_for_status(self, number: int, status: str) -> dict[str, Any]:
        """Wait until a rollout has a status."""
        eventually(
            lambda: self.rollout(number)["status"] == status, f"rollout {number} is {status}", timeout_s=60.0
        )
        return self.rollout(number)

    def versions(self) -> dict[str, int | None]:
        """Return the version that each device reports to have committed."""
        found: dict[str, int | None] = {}
        for row in self.hub.client.pages("/devices"):
            states = [m for m in row["models"] if m["model"] == MODEL and m["phase"] == "COMMITTED"]
            found[row["device_id"]] = states[0]["version"] if states else None
        return found

    def wait_for_version(self, version: int | None) -> None:
        """Wait until every device reports to run a version."""
        eventually(
            lambda: set(self.versions().values()) == {version}, f"all run version {version}", timeout_s=60.0
        )

    def counted_predictions(self) -> int:
        """Return how many predictions the hub has counted."""
        return sum(row["predictions"] for row in self.hub.client.get("/fleet/totals")["items"])

    def answered_predictions(self) -> int:
        """Return how many predictions the cameras got."""
        return sum(sum(camera.answers_by_version.values()) for camera in self.cameras.values())
