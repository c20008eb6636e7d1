"""What a real agent keeps in memory: the runtimes that it uses, each model once, and no more than it may."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.life.opening import needed_bytes
from fleet.protocol.deployment import DeploymentState as S
from tests.support.agent_bundles import TFLITE_VARIANT, VARIANT, build
from tests.support.agent_device import SAMPLE, Device, UnixConnection
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.waiting import eventually

LIBRARIES = {VARIANT: "onnxruntime_pybind11_state", TFLITE_VARIANT: "libpywrap_litert"}
CLIENTS = 20


def _maps(device: Device) -> list[str]:
    return Path(f"/proc/{device.process_id}/maps").read_text("utf-8").splitlines()


@pytest.mark.parametrize("variant", LIBRARIES)
def test_only_the_runtime_that_is_used_is_in_memory(
    peer: Peer, make_device: MakeDevice, variant: str
) -> None:
    bundle = build(1).ordering(variant)
    peer.release(bundle)
    device = make_device()
    device.start()
    peer.assign(device.id, (bundle, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    maps = _maps(device)
    assert {name for name, library in LIBRARIES.items() if any(library in line for line in maps)} == {variant}
    assert device.call("GET", "/v2/models/digits/config").body["parameters"]["accelerator"] == {
        "string_value": "cpu"
    }


def test_a_model_is_in_memory_once_for_all_clients(peer: Peer, make_device: MakeDevice) -> None:
    bundle = build(1).ordering(TFLITE_VARIANT)  # LiteRT maps a model's file, so that it can be counted
    peer.release(bundle)
    device = make_device()
    device.start()
    peer.assign(device.id, (bundle, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    clients = [UnixConnection(device.socket) for _ in range(CLIENTS)]
    for client in clients:
        client.connect()
        assert device.infer(SAMPLE).status == 200
    assert sum("model.tflite" in line for line in _maps(device)) == 1
    for client in clients:
        client.close()


def test_what_does_not_fit_is_refused_before_it_is_downloaded(peer: Peer, make_device: MakeDevice) -> None:
    bundle = build(1)
    peer.release(bundle)
    needed = needed_bytes(bundle.variant.requirement)
    device = make_device(model_memory_limit_bytes=needed - 1)
    device.start()
    peer.assign(device.id, (bundle, "d-1"))
    report = peer.wait_end("d-1")
    assert report.cause is not None
    assert (report.state, report.cause.code) == (S.REJECTED, "memory_budget_exceeded")
    assert str(needed) in report.cause.detail
    assert str(needed - 1) in report.cause.detail
    assert peer.wants == []


def test_an_update_needs_room_for_both_versions(peer: Peer, make_device: MakeDevice) -> None:
    one, two = build(1), build(2)
    peer.release(one, two)
    needed = needed_bytes(one.variant.requirement)
    device = make_device(models_memory_limit_bytes=2 * needed - 1)
    device.start()
    peer.assign(device.id, (one, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    peer.assign(device.id, (two, "d-2"))
    report = peer.wait_end("d-2")
    assert report.cause is not None
    assert (report.state, report.cause.code) == (S.REJECTED, "memory_budget_exceeded")
    assert device.answering_version() == "1"
    device.stop()
    device.start()  # what was committed is loaded again
    eventually(lambda: device.answering_version() == "1")


def test_a_missing_accelerator_is_an_incident_and_the_processor_answers(
    peer: Peer, make_device: MakeDevice
) -> None:
    bundle = build(1)
    peer.release(bundle)
    device = make_device(execution_providers=["cuda"])
    device.start()
    peer.assign(device.id, (bundle, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    assert "cuda" in peer.wait_incident("accelerator_failed").cause.detail
    assert device.answering_version() == "1"
