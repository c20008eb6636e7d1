"""Samples from an enrolled device that says what it likes: what was ordered is kept, the rest refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import msgspec
import numpy as np
import pytest

from fleet.protocol import messages
from fleet.protocol.errors import Conflict
from fleet.protocol.messages import Ack, Hello
from fleet.protocol.samples import Reason, Sample, SampleMessage, tensors_of
from fleet.protocol.topics import Down, Up
from hub.store.sqlite import SqliteStore
from tests.integration.test_hub_ingest import RawDevice
from tests.support.hub import HubProcess
from tests.support.stores import CAPABILITIES, STREAM
from tests.support.waiting import eventually

POLICY: dict[str, object] = {
    "uncertain_below": 0.6,
    "bytes_per_day": 1000,
    "sample_bytes": 512,
    "lifetime_s": 3600,
}
ABLE = msgspec.structs.replace(CAPABILITIES, captures_samples=True)


@pytest.fixture
def device(hub: HubProcess) -> Iterator[RawDevice]:
    """A device that can say anything."""
    made = RawDevice(hub)
    yield made
    made.mqtt.close()


def sample(device: RawDevice, numbers: int = 64) -> Sample:
    """Return what a device might capture of version 1, an image of so many pixels."""
    digest = device.hub.client.get("/models/digits/versions/1")["manifest_sha256"]
    inputs = tensors_of({"input": np.ones((1, numbers), np.float32)})
    return Sample(10.0, "digits", 1, digest, Reason.UNCERTAIN, inputs, category=3, confidence=0.5)


def order(device: RawDevice, policy: dict[str, object] | None) -> dict[str, object]:
    """Order the device to capture, or no more."""
    body = {"devices": [device.id], "policy": policy}
    answer: dict[str, object] = device.hub.client.post("/models/digits/capture", body)
    return answer


def send(device: RawDevice, number: int, body: Sample) -> None:
    """Send a sample and wait for its acknowledgement."""
    device.say(Up.SAMPLE, messages.encode(SampleMessage(STREAM, number, body)))
    assert messages.decode(device.hear(Down.ACK), Ack) == Ack(STREAM, (number,))


def kept(device: RawDevice) -> int:
    """Return how many samples the hub has of the device."""
    return len(device.hub.client.get("/samples", device_id=device.id)["items"])


def test_samples_are_kept_once_and_only_while_they_are_ordered(device: RawDevice) -> None:
    with pytest.raises(Conflict):  # it has not said that it may capture
        order(device, POLICY)
    device.say(Up.HELLO, messages.encode(Hello(messages.PROTOCOL_VERSION, 0, ABLE)))
    eventually(lambda: device.hub.client.get(f"/devices/{device.id}")["online"], "it is there")
    send(device, 1, sample(device))
    eventually(lambda: device.refusals() == ["invalid_message"], "nobody asked for it")

    assert order(device, POLICY)["changed"] == [device.id]
    assert order(device, POLICY)["refused"] == {}
    for _ in range(2):
        send(device, 2, sample(device))
    assert kept(device) == 1
    send(device, 3, sample(device, numbers=63))
    eventually(lambda: len(device.refusals()) == 2, "it is no image")
    send(device, 4, msgspec.structs.replace(sample(device), version=99))
    eventually(lambda: device.refusals()[2:] == ["not_found"], "there is no such version")
    device.say(Up.SAMPLE, b"\x93\xa0\x01")
    eventually(lambda: len(device.refusals()) == 4, "it is no sample")

    order(device, None)
    send(device, 5, sample(device))
    eventually(lambda: len(device.refusals()) == 5, "nobody asks for it any more")
    assert kept(device) == 1
    assert device.is_still_heard()
    assert device.hub.client.post("/samples/delete", {"device_id": device.id}) == {"deleted": 1}
    with closing(SqliteStore(device.hub.home / "hub.db")) as store:  # what they showed is kept nowhere
        letters = [letter for letter in store.dead_letters(limit=1000) if letter.device_id == device.id]
    assert [letter.payload for letter in letters] == [b""] * 5
