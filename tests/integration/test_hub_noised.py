"""Noise on counts at a real hub: wished over HTTP and by command, taken in, and shown for what it is."""

from __future__ import annotations

import random
import time
from contextlib import closing
from typing import Any

import httpx
import msgspec
import pytest

from fleet.privacy.windows import noised, whole
from fleet.protocol.errors import Conflict, InvalidInput
from fleet.protocol.manifest import decode_manifest
from fleet.protocol.records import TelemetryWindow
from hub.store.blobs import BlobFolder
from hub.store.sqlite import SqliteStore
from tests.conftest import MODEL
from tests.support.hub import HubProcess
from tests.support.stores import CAPABILITIES, greeting, incoming, join_running_hub, say
from tests.support.waiting import eventually

DEVICE, WINDOWS, ANSWERS = "private-1", 5, 400
CHANCE = random.Random(4)


@pytest.fixture(scope="module")
def hub(hub: HubProcess) -> HubProcess:
    """The shared hub, which got noised windows of a device."""
    with closing(SqliteStore(hub.home / "hub.db")) as store:
        digest = store.version(MODEL, 1).manifest_sha256
        assert digest is not None
        reference = decode_manifest(BlobFolder(hub.home / "blobs").read(digest)).reference
        now_s = time.time()
        join_running_hub(store, DEVICE, DEVICE, now_s)
        for number in range(1, WINDOWS + 1):
            window = TelemetryWindow(now_s - 60.0, now_s, MODEL, 1, digest, "onnx-fp32", predictions=ANSWERS)
            window.profile = whole({}, reference)
            record = incoming(DEVICE, number, noised(window, 1.0, CHANCE.randbytes))
            store.add_records([msgspec.structs.replace(record, received_at_s=now_s)])
    return hub


def _get(hub: HubProcess, path: str, **parameters: Any) -> Any:
    headers = {"Authorization": f"Bearer {hub.token}"}
    response = httpx.get(f"{hub.url}/api/v1{path}", headers=headers, params=parameters, timeout=30)
    response.raise_for_status()
    return response.json()


def test_noised_counts_are_shown_with_their_noise_and_are_in_no_total(hub: HubProcess) -> None:
    (item,) = eventually(
        lambda: [
            item for item in _get(hub, "/fleet/noised", model=MODEL)["items"] if item["windows"] == WINDOWS
        ]
    )
    assert (item["version"], item["epsilon"]) == (1, 1.0)
    assert abs(item["predictions"] - WINDOWS * ANSWERS) < 8 * item["deviation"]
    assert {feature["distance"] for feature in item["features"]} == {None}, "nothing but noise was sent"
    assert _get(hub, "/fleet/totals", device_id=DEVICE)["items"] == []
    assert "nothing but noise" in hub.muster("fleet", "noised", "--model", MODEL)
    metrics = httpx.get(f"{hub.url}/metrics", headers={"Authorization": f"Bearer {hub.token}"}).text
    assert f"muster_noised_windows_total {float(WINDOWS)}" in metrics


def test_noise_is_wished_of_a_device_that_can(hub: HubProcess) -> None:
    client = hub.client
    with pytest.raises(Conflict, match="no noise"):
        client.post(f"/devices/{DEVICE}/count-noise", {"epsilon": 1.0})
    with closing(SqliteStore(hub.home / "hub.db")) as store:
        able = msgspec.structs.replace(CAPABILITIES, obeys_wishes=True, noises_counts=True)
        say(store, DEVICE, time.time(), hello=greeting(able))
    assert "ε = 0.5 at most" in hub.muster("device", "count-noise", DEVICE, "0.5")
    assert client.get(f"/devices/{DEVICE}")["wishes"]["count_noise_epsilon"] == 0.5
    assert client.post(f"/devices/{DEVICE}/count-noise", {"epsilon": None})["count_noise_epsilon"] is None
    for nonsense in (0.0, 1e9, "much"):
        with pytest.raises(InvalidInput):
            client.post(f"/devices/{DEVICE}/count-noise", {"epsilon": nonsense})
