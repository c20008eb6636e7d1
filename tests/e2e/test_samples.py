"""Samples for labelling, from the operator's policy to dataset files, on a real hub and device."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from converters.data.samples import read_samples
from fleet.protocol.errors import NotPermitted
from hub.cli.client import Client
from tests.support.agent_bundles import MODEL, expected_class
from tests.support.agent_device import SAMPLE, Device
from tests.support.fleet import Invitation
from tests.support.hub import HubProcess
from tests.support.registrable import archive, small_bundle
from tests.support.waiting import eventually

REDACTION = """
import json, sys
head = json.loads(sys.stdin.buffer.readline())
data = sys.stdin.buffer.read()
sys.stdout.buffer.write(json.dumps(head).encode() + b"\\n" + bytes(4) + data[4:])
"""
PLAN = {
    "stages": [{"devices": "all", "minimum_bake_s": 0.2, "maximum_bake_s": 600.0}],
    "gate": {"metrics": [{"metric": "inference_errors", "margin": 0.1, "limit": 0.1}]},
    "deployment_timeout_s": 60.0,
}


def invited(hub: HubProcess, folder: Path, name: str, **settings: object) -> Device:
    """Return a device that has enrolled."""
    token = hub.client.post("/enrolment-tokens")["token"]
    return Device(Invitation(hub.url, token), folder, name, **settings)


def test_an_uncertain_input_comes_redacted_is_exported_and_deleted(tmp_path: Path) -> None:
    redact = tmp_path / "redact.py"
    redact.write_text(REDACTION)
    with HubProcess(tmp_path / "hub", broker="embedded") as hub:
        able = invited(
            hub,
            tmp_path,
            "cam-0",
            allow_sample_capture=True,
            sample_redaction="first",
            sample_redaction_command=[sys.executable, str(redact)],
        )
        unable = invited(hub, tmp_path, "cam-1")
        try:
            for device in (able, unable):
                device.start()
            online = [f"/devices/{device.id}" for device in (able, unable)]
            eventually(lambda: all(hub.client.get(path)["online"] for path in online), "both are there")
            hub.client.send(f"/models/{MODEL}/versions/bundle", [archive(small_bundle())])
            hub.client.post(f"/models/{MODEL}/versions/1/release")
            plan = tmp_path / "plan.json"
            plan.write_text(json.dumps(PLAN))
            hub.muster("rollout", "create", MODEL, "1", "--plan", str(plan), "--start")
            for device in (able, unable):
                device.wait_version(1)
            assert hub.client.get("/samples")["items"] == []

            options = ("--uncertain-below", "1", "--redaction", "first", "--bytes-per-day", "100000")
            said = hub.muster("model", "capture", MODEL, "--where", 'site == "lab"', *options)
            assert "Changed: cam-0." in said
            assert "Left out: cam-1." in said
            refused = hub.muster("model", "capture", MODEL, "--device", "cam-1", *options, check=False)
            assert "[conflict]" in refused
            done = [action["text"] for action in hub.client.get("/devices/cam-0")["actions"]]
            assert "uncertain_below" in done[0]

            def captured() -> bool:
                able.infer(SAMPLE)
                return bool(hub.client.get("/samples")["items"])

            eventually(captured, "a sample has come", timeout_s=30.0)
            unable.infer(SAMPLE)
            (going,) = hub.client.get(f"/models/{MODEL}/capture")
            assert (going["device_id"], going["uncertain_below"]) == ("cam-0", 1.0)
            assert "cam-0" in hub.muster("model", "capture", MODEL)
            out = tmp_path / "out"
            hub.muster("samples", "export", "--model", MODEL, "--out", str(out))
            samples = read_samples(out / "samples-1.npz")
            assert samples.arrays["features"][0].tolist() == pytest.approx([0.0, *SAMPLE[1:]])
            lines = list(csv.DictReader((out / "samples.csv").read_text().splitlines()))
            assert len(lines) == len(samples)
            assert {line["device"] for line in lines} == {"cam-0"}
            first = lines[0]
            assert (first["redaction"], first["reason"], first["label"]) == ("first", "uncertain", "")
            assert int(lines[0]["predicted"]) == expected_class(1, SAMPLE)
            again = hub.muster("samples", "export", "--model", MODEL, "--out", str(out), check=False)
            assert "[invalid_input]" in again

            board = eventually(lambda: hub.client.get("/devices/cam-0/board"), "the board was read")
            assert board["free_memory_bytes"]["least"] > 0
            assert "of memory free" in hub.muster("device", "show", "cam-0")
            hub.muster("model", "capture", MODEL, "--device", "cam-0", "--off")
            assert hub.client.get(f"/models/{MODEL}/capture") == []
            assert "deleted" in hub.muster("samples", "delete", "--device", "cam-0")
            assert hub.muster("samples", "delete", check=False).strip().endswith("[conflict]")
            assert "deleted" in hub.client.get("/devices/cam-0")["actions"][0]["text"]
            viewer = hub.muster("hub", "token", "looks-on", "--home", str(hub.home), "--role", "viewer")
            client = Client(hub.url, viewer.split()[-1])
            with pytest.raises(NotPermitted):
                client.get("/samples")
            client.close()
        finally:
            able.close()
            unable.close()
