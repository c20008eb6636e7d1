"""What operators wish of a device, with real agents, and with a real hub by its commands."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import httpx

from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.records import Diagnostics
from fleet.protocol.topics import Up
from fleet.protocol.wishes import LogLevel, Wishes
from tests.support.agent_bundles import build
from tests.support.agent_device import Device
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.fleet import Invitation
from tests.support.hub import HubProcess
from tests.support.waiting import eventually

ONE = build(1)


def bundles(peer: Peer, request_id: str) -> list[Diagnostics]:
    """Return the bundles that answered a request."""
    bodies = [record.body for record in peer.records if isinstance(record.body, Diagnostics)]
    return [body for body in bodies if body.request_id == request_id]


def parts(data: bytes) -> dict[str, dict[str, Any]]:
    """Return a bundle's parts by name."""
    lines = [json.loads(line) for line in gzip.decompress(data).splitlines()]
    return {line["part"]: line for line in lines if "part" in line}


def log_level(peer: Peer, request_id: str) -> str:
    """Return the level that the agent logs from, as the bundle of a request tells."""
    (bundle,) = eventually(lambda: bundles(peer, request_id), "the request is answered")
    return str(parts(bundle.data)["process"]["log_level"])


def test_the_log_level_is_in_force_at_once_over_restarts_and_until_it_is_taken_back(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device()
    device.start()
    peer.assign(device.id, wishes=Wishes(diagnostics="d-1"))
    assert log_level(peer, "d-1") == "info"
    peer.assign(device.id, wishes=Wishes(LogLevel.DEBUG, diagnostics="d-2"))
    assert log_level(peer, "d-2") == "debug"
    device.kill()
    device.start()
    peer.assign(device.id, wishes=Wishes(LogLevel.DEBUG, diagnostics="d-3"))
    assert log_level(peer, "d-3") == "debug"
    peer.assign(device.id, wishes=Wishes(diagnostics="d-4"))
    assert log_level(peer, "d-4") == "info"


def test_a_request_is_answered_once_although_nobody_listens_and_the_agent_is_killed(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device()
    peer.release(ONE)
    peer.silent.add(Up.RECORD)
    device.start()
    peer.assign(device.id, wishes=Wishes(diagnostics="d-1"))
    eventually(lambda: peer.states and peer.states[-1].unacknowledged_records, "the answer is in the outbox")
    device.kill()
    peer.silent.clear()
    device.start()
    eventually(lambda: bundles(peer, "d-1"), "the answer comes")
    peer.wait_settled()
    device.stop()
    device.start()
    peer.assign(device.id, (ONE, "o-1"), wishes=Wishes(diagnostics="d-1"))
    peer.wait_report("o-1", S.SUCCEEDED)
    assert len(bundles(peer, "d-1")) == 1


def test_operators_steer_one_device_by_commands(hub: HubProcess, tmp_path: Path) -> None:
    version = hub.train_and_release("steered", estimator="logistic", seed=1)
    token = hub.client.post("/enrolment-tokens")["token"]
    device = Device(Invitation(hub.url, token), tmp_path, "steered-1")
    try:
        hub.muster("device", "hold", device.id, "--reason", "on the road")
        device.start()
        _roll_out(hub, "steered", version, device.id)
        waiting = eventually(lambda: _model(hub, device.id).get("waiting_for"), "the hub is told of the wait")
        assert waiting == "Updates are held by the hub."
        shown = hub.muster("device", "show", device.id)
        assert "on the road" in shown
        assert "Updates are held by the hub." in shown
        hub.muster("device", "release", device.id)
        eventually(lambda: _model(hub, device.id).get("phase") == "COMMITTED", "the version is swapped in")

        hub.muster("device", "log-level", device.id, "debug")
        out = tmp_path / "bundle.jsonl.gz"
        hub.muster("device", "diagnose", device.id, "--out", str(out))
        assert parts(out.read_bytes())["process"]["log_level"] == "debug"
        again = tmp_path / "again.jsonl.gz"
        (sent,) = hub.client.get(f"/devices/{device.id}")["diagnostics"]
        hub.muster("device", "diagnose", device.id, "--request", sent["request_id"], "--out", str(again))
        assert again.read_bytes() == out.read_bytes()
        never = hub.muster("device", "diagnose", device.id, "--request", "d-0", check=False)
        assert never.strip().endswith("[not_found]")  # at once, not after five minutes
        wishes = hub.client.post(f"/devices/{device.id}/log-level", {"level": None})
        assert (wishes["log_level"], wishes["held"]) == (None, None)

        done = [action["text"] for action in hub.client.get(f"/devices/{device.id}")["actions"]]
        assert done[-1] == "Updates held: on the road"
        assert sum("downloaded" in text for text in done) == 2
    finally:
        device.close()


def test_a_viewer_reads_what_is_wished_and_neither_wishes_nor_downloads(
    hub: HubProcess, tmp_path: Path
) -> None:
    token = hub.client.post("/enrolment-tokens")["token"]
    device = Device(Invitation(hub.url, token), tmp_path, "watched-1")
    try:
        viewer = hub.muster("hub", "token", "watcher", "--role", "viewer", "--home", str(hub.home)).strip()
        headers = {"Authorization": f"Bearer {viewer}"}
        url = f"{hub.url}/api/v1/devices/{device.id}"
        request_id = hub.client.post(f"/devices/{device.id}/diagnostics")["request_id"]
        device.start()
        eventually(lambda: hub.client.get(f"/devices/{device.id}")["diagnostics"], "the bundle has come")
        assert httpx.get(url, headers=headers).json()["wishes"]["diagnostics"] == request_id
        for path, body in (
            ("hold", {}),
            ("release", {}),
            ("log-level", {"level": None}),
            ("diagnostics", {}),
        ):
            assert httpx.post(f"{url}/{path}", headers=headers, json=body).status_code == 403
        assert httpx.get(f"{url}/diagnostics/{request_id}", headers=headers).status_code == 403
    finally:
        device.close()


def test_wishes_that_cannot_be_are_refused(hub: HubProcess) -> None:
    for arguments in (
        ("hold", "nobody"),
        ("log-level", "nobody", "loud"),
        ("diagnose", "nobody", "--request", "d-1", "--out", "/no/such/folder/file"),
    ):
        assert hub.muster("device", *arguments, check=False).startswith("error: ")


def _roll_out(hub: HubProcess, model: str, version: int, device_id: str) -> None:
    body = {"model": model, "version": version, "devices": [device_id]}
    number = hub.client.post("/rollouts", body)["number"]
    hub.client.post(f"/rollouts/{number}/start")


def _model(hub: HubProcess, device_id: str) -> dict[str, Any]:
    models = hub.client.get(f"/devices/{device_id}")["models"]
    return dict(models[0]) if models else {}
