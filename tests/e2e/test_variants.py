"""A fleet whose first devices measure which variant is fastest, so that the others need not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from converters.bundles.bundle import Bundle
from fleet.protocol.manifest import Variant, encode_manifest
from fleet.protocol.requirement import RuntimeVersion
from tests.support.agent_bundles import SLOW, TFLITE_VARIANT, build
from tests.support.agent_device import Device
from tests.support.fleet import Invitation
from tests.support.hub import HubProcess
from tests.support.registrable import archive, write
from tests.support.waiting import eventually

MODEL = "digits"
PLAN = {
    "stages": [
        {"devices": 3, "minimum_bake_s": 0.2, "maximum_bake_s": 60.0},
        {"devices": "all", "minimum_bake_s": 0.2, "maximum_bake_s": 60.0},
    ],
    "gate": {"metrics": [{"metric": "inference_errors", "margin": 0.1, "limit": 0.1}]},
    "deployment_timeout_s": 60.0,
}


def slow_and_fast() -> Bundle:
    """Return a bundle that prefers a slow variant for ONNX Runtime to a fast one for LiteRT."""
    built = build(1, others=(SLOW,))

    def runnable(variant: Variant) -> Variant:
        runtimes = (RuntimeVersion("onnxruntime", "1.20"),)
        requirement = msgspec.structs.replace(variant.requirement, runtimes=runtimes)
        return msgspec.structs.replace(variant, requirement=requirement)

    variants = (runnable(built.manifest.variant(SLOW)), built.manifest.variant(TFLITE_VARIANT))
    manifest = msgspec.structs.replace(built.manifest, variants=variants)
    needed = {file.sha256 for variant in variants for file in manifest.files(variant)}
    blobs = {sha256: data for sha256, data in built.blobs.items() if sha256 in needed}
    return Bundle(manifest, encode_manifest(manifest), blobs)


def succeeded(hub: HubProcess, number: int) -> int:
    """Return how many devices of a rollout run its version."""
    count: int = hub.client.get(f"/rollouts/{number}")["counts"].get("SUCCEEDED", 0)
    return count


def measurements(hub: HubProcess, device: Device) -> list[dict[str, Any]]:
    """Return what a device measured."""
    found: list[dict[str, Any]] = hub.client.get(f"/devices/{device.id}/measurements")
    return found


@pytest.mark.long
def test_the_winner_of_three_devices_is_what_the_fourth_is_offered(tmp_path: Path) -> None:
    devices: list[Device] = []
    with HubProcess(tmp_path / "hub", broker="embedded") as hub:
        try:
            for number in range(4):
                token = hub.client.post("/enrolment-tokens")["token"]
                devices.append(Device(Invitation(hub.url, token), tmp_path, f"cam-{number}"))
                devices[-1].start()
            eventually(lambda: all(row["hardware"] for row in hub.client.pages("/devices")), "all said hello")
            hub.client.send(f"/models/{MODEL}/versions/bundle", [archive(slow_and_fast())])
            hub.client.post(f"/models/{MODEL}/versions/1/release")
            plan = write(tmp_path / "plan.json", json.dumps(PLAN).encode())
            options = ("--plan", str(plan), "--variant-policy", "fastest", "--start", "--json")
            number = json.loads(hub.muster("rollout", "create", MODEL, "1", *options))["number"]
            eventually(lambda: succeeded(hub, number) == 3, "three devices run it", timeout_s=30.0)
            classes = hub.client.get(f"/models/{MODEL}/versions/1/measurements")
            assert [(each["devices"], each["agreed"]["fastest"]) for each in classes] == [(3, TFLITE_VARIANT)]
            hub.client.post(f"/rollouts/{number}/promote", {"reason": "measured", "stage": 1})
            eventually(lambda: succeeded(hub, number) == 4, "the fourth runs it", timeout_s=30.0)

            measured = {device.id: measurements(hub, device) for device in devices}
            [last] = [device for device in devices if not measured[device.id]]
            chosen = [each["chosen"] for found in measured.values() for each in found]
            assert chosen == [TFLITE_VARIANT] * 3
            names = {
                c["variant"] for found in measured.values() for each in found for c in each["candidates"]
            }
            assert names == {SLOW, TFLITE_VARIANT}
            folder = last.state / "models" / MODEL
            assert [path.name.partition(".")[2] for path in folder.iterdir()] == [TFLITE_VARIANT]
            assert not (last.state / "variants.json").exists()
            assert f"{TFLITE_VARIANT} │ fastest" in hub.muster("model", "show", MODEL, "1")
            assert hub.client.get("/fleet/dead-letters")["items"] == []
        finally:
            for device in devices:
                device.close()
