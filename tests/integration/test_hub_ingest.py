"""Bad messages from an enrolled device: each is refused with its cause, and the stream goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import cbor2
import httpx
import msgspec
import pytest

from fleet.protocol import messages, topics
from fleet.protocol.assignment import ModelOrder, decode_assignment
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.enrolment import EnrolmentAnswer, EnrolmentRequest, parse_token
from fleet.protocol.messages import Ack, FetchRequest, FileAnswer, Hello, Record, StateReport
from fleet.protocol.records import DeploymentReport, ShadowReport
from fleet.protocol.topics import Down, Up
from tests.support.hub import HubProcess
from tests.support.measurements import candidate, measurement
from tests.support.mqtt_client import Client
from tests.support.stores import CAPABILITIES, DIGEST, STREAM, incident, window
from tests.support.waiting import eventually

_numbers = count(1)


class Access(NamedTuple):
    """A device's way to the hub's broker."""

    port: int
    passwords: dict[str, str]


class RawDevice:
    """An enrolled device without an agent: it says what the test says.

    Args:
        hub: Runs.
    """

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.id = f"raw-{next(_numbers)}"
        token = parse_token(hub.client.post("/enrolment-tokens")["token"])
        request = EnrolmentRequest(token.secret, self.id, CAPABILITIES)
        response = httpx.post(f"{hub.url}/api/v1/enrol", content=msgspec.json.encode(request))
        assert response.status_code == 201, response.text
        answer = msgspec.json.decode(response.content, type=EnrolmentAnswer)
        access = Access(answer.broker.port, {self.id: answer.broker.password})
        self.mqtt = Client(access, self.id).wait_connected()
        assert self.mqtt.subscribe(topics.device_subscription(self.id))

    def say(self, channel: Up, payload: bytes) -> None:
        """Publish bytes on one of the device's channels."""
        self.mqtt.publish(topics.up(self.id, channel), payload)

    def hear(self, channel: Down) -> bytes:
        """Wait for the next message on a channel."""
        while True:
            message = self.mqtt.receive()
            if message.topic == topics.down(self.id, channel):
                return message.payload

    def hear_order(self) -> ModelOrder:
        """Wait for an assignment that orders a model: one without any may answer the hello first."""
        while True:
            ordered = decode_assignment(cbor2.loads(self.hear(Down.ASSIGNMENT)).value[2]).models
            if ordered:
                return ordered[0]

    def refusals(self) -> list[str]:
        """Return the codes with which the hub refused this device's messages, oldest first."""
        letters = self.hub.client.get("/fleet/dead-letters", limit=1000)["items"]
        own = [letter for letter in letters if f"/{self.id}/" in letter["topic"]]
        return [letter["cause"]["code"] for letter in reversed(own)]

    def is_still_heard(self) -> bool:
        """Tell whether the hub still takes in what the device says."""
        self.say(Up.RECORD, messages.encode(Record(STREAM, 999_999, incident())))
        ack = messages.decode(self.hear(Down.ACK), Ack)
        return ack.numbers == (999_999,)


@pytest.fixture
def device(hub: HubProcess) -> Iterator[RawDevice]:
    """A device that can say anything."""
    made = RawDevice(hub)
    yield made
    made.mqtt.close()


HELLO = messages.encode(Hello(messages.PROTOCOL_VERSION, 0, CAPABILITIES))


@pytest.mark.parametrize(
    ("channel", "payload", "code"),
    [
        (Up.HELLO, b"", "invalid_message"),
        (Up.HELLO, HELLO[:-7], "invalid_message"),
        (Up.HELLO, messages.encode(Hello(99, 0, CAPABILITIES)), "invalid_message"),
        (Up.STATE, b"\xc1" * 100, "invalid_message"),
        (Up.RECORD, b"\x91" * 5000, "invalid_message"),
        (Up.RECORD, bytes(messages.MAX_MESSAGE_SIZE_BYTES + 1), "message_too_large"),
        (Up.WANT, HELLO, "invalid_message"),
        (Up.FETCH, b"{}", "invalid_message"),
        (Up.PRESENCE, b"yes", "invalid_message"),
    ],
)
def test_a_message_that_breaks_the_protocol_is_refused(
    device: RawDevice, channel: Up, payload: bytes, code: str
) -> None:
    device.say(channel, payload)
    eventually(lambda: device.refusals() == [code], f"refused as {code}")
    assert device.is_still_heard()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 99},
        {"model": "nothing"},
        {"manifest_sha256": DIGEST},
        {"correct": 3, "labelled": 2},
        {"started_at_s": 20.0, "ended_at_s": 10.0},
    ],
)
def test_a_window_that_cannot_be_true_is_refused_and_not_asked_for_again(
    device: RawDevice, changes: dict[str, Any]
) -> None:
    digest = device.hub.client.get("/models/digits/versions/1")["manifest_sha256"]
    body = msgspec.structs.replace(window(), manifest_sha256=digest)
    device.say(Up.RECORD, messages.encode(Record(STREAM, 1, msgspec.structs.replace(body, **changes))))
    assert messages.decode(device.hear(Down.ACK), Ack).numbers == (1,)
    eventually(lambda: len(device.refusals()) == 1, "refused")
    assert device.hub.client.get("/fleet/totals", device_id=device.id)["items"] == []
    assert device.is_still_heard()


def test_a_measurement_is_kept_and_one_that_contradicts_itself_is_not(device: RawDevice) -> None:
    digest = device.hub.client.get("/models/digits/versions/1")["manifest_sha256"]
    measured = measurement(candidate("onnx-fp32", 9.0), candidate("onnx-int8", 5.0))
    measured = msgspec.structs.replace(measured, manifest_sha256=digest)
    wrong = (
        msgspec.structs.replace(measured, chosen="onnx-fp32"),
        msgspec.structs.replace(measured, manifest_sha256=DIGEST),
        msgspec.structs.replace(measured, version=99),
    )
    for number, body in enumerate((*wrong, measured), start=1):
        device.say(Up.RECORD, messages.encode(Record(STREAM, number, body)))
        assert messages.decode(device.hear(Down.ACK), Ack).numbers == (number,)
    eventually(lambda: len(device.refusals()) == len(wrong), "refused")
    [kept] = eventually(lambda: device.hub.client.get(f"/devices/{device.id}/measurements"))
    assert (kept["chosen"], [each["median_us"] for each in kept["candidates"]]) == ("onnx-int8", [9.0, 5.0])


def test_a_record_counts_once_and_is_acknowledged_each_time(device: RawDevice) -> None:
    digest = device.hub.client.get("/models/digits/versions/1")["manifest_sha256"]
    body = msgspec.structs.replace(window(predictions=10), manifest_sha256=digest, labelled=8, correct=6)
    for _ in range(3):
        device.say(Up.RECORD, messages.encode(Record(STREAM, 1, body)))
        assert messages.decode(device.hear(Down.ACK), Ack) == Ack(STREAM, (1,))
    path = "/fleet/totals"
    [total] = eventually(lambda: device.hub.client.get(path, device_id=device.id)["items"], "it is counted")
    assert (total["predictions"], total["accuracy"]) == (10, 0.75)
    lower, upper = total["accuracy_interval"]
    assert 0.2 < lower < 0.75 < upper < 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 99},
        {"manifest_sha256": DIGEST},
        {"disagreed": 41},
        {"pairs": ((0, 1, 5),)},
        {"active_latency": {1: 1}},
    ],
)
def test_a_report_of_a_shadow_that_cannot_be_true_is_refused_and_not_asked_for_again(
    device: RawDevice, changes: dict[str, Any]
) -> None:
    body = msgspec.structs.replace(shadow_report(device, "r1-0f"), **changes)
    device.say(Up.RECORD, messages.encode(Record(STREAM, 1, body)))
    assert messages.decode(device.hear(Down.ACK), Ack).numbers == (1,)
    eventually(lambda: device.refusals() == ["invalid_message"] or device.refusals() == ["not_found"])
    assert device.is_still_heard()


def test_a_rollout_orders_its_shadow_and_shows_what_came_of_it(device: RawDevice) -> None:
    client = device.hub.client
    knows_shadows = msgspec.structs.replace(CAPABILITIES, obeys_wishes=True)
    device.say(Up.HELLO, messages.encode(Hello(messages.PROTOCOL_VERSION, 0, knows_shadows)))
    assert device.is_still_heard()
    plan = {
        "stages": [{"devices": "all", "minimum_bake_s": 600, "maximum_bake_s": 600}],
        "gate": {"metrics": [{"metric": "label_errors", "margin": 0.1, "limit": 0.3}]},
        "shadow_s": 3600,
    }
    rollout = client.post(
        "/rollouts", {"model": "digits", "version": 1, "plan": plan, "devices": [device.id]}
    )
    client.post(f"/rollouts/{rollout['number']}/start")
    order = device.hear_order()
    assert (order.version, order.shadow_s) == (1, 3600)
    body = shadow_report(device, order.deployment_id)
    foreign = msgspec.structs.replace(body, deployment_id="r99999-0f")
    for number, each in enumerate((body, body, foreign)):
        device.say(Up.RECORD, messages.encode(Record(STREAM, number, each)))
    say_state(device, order.deployment_id, DeploymentState.SHADOW)
    path = f"/rollouts/{rollout['number']}"
    eventually(lambda: client.get(path)["counts"] == {"SHADOW": 1}, "the device is in the shadow")
    eventually(lambda: client.get(f"{path}/shadow")["compared"] == 80, "both reports are added up")
    shadow = client.get(f"{path}/shadow")
    shown = json.loads(device.hub.muster("rollout", "status", str(rollout["number"]), "--json"))
    metrics = httpx.get(f"{device.hub.url}/metrics").text
    client.post(f"{path}/abort", {})
    say_state(device, order.deployment_id, DeploymentState.REMOVED)
    assert shown["shadow"] == shadow
    assert (shadow["devices"], shadow["disagreed"], shadow["disagreed_share"]) == (1, 8, 0.1)
    assert shadow["pairs"] == [
        {"active": 0, "candidate": 1, "samples": 6},
        {"active": 2, "candidate": 1, "samples": 2},
    ]
    assert shadow["active_latency_p50_us"] < shadow["candidate_latency_p50_us"]
    assert 'muster_shadow_disagreed{model="digits",version="1"} 8.0' in metrics
    written = "muster_ingest_write_duration_seconds_count"
    for name in ('muster_mqtt_messages_total{channel="record"}', written):
        assert f"\n{name} " in metrics
        assert f"\n{name} 0.0\n" not in metrics
    eventually(lambda: client.get(path)["status"] == "ABORTED", "the rollout is out of the way")


def say_state(device: RawDevice, deployment_id: str, state: DeploymentState) -> None:
    """Report a state of a deployment of version 1."""
    told = DeploymentReport(20.0, deployment_id, "digits", 1, state)
    device.say(Up.RECORD, messages.encode(Record("f" * 16, list(DeploymentState).index(state), told)))


def shadow_report(device: RawDevice, deployment_id: str) -> ShadowReport:
    """Return what a device might report of version 1 in the shadow of another."""
    return ShadowReport(
        started_at_s=10.0,
        ended_at_s=20.0,
        deployment_id=deployment_id,
        model="digits",
        active_version=7,
        version=1,
        manifest_sha256=device.hub.client.get("/models/digits/versions/1")["manifest_sha256"],
        compared=40,
        disagreed=4,
        left_out=2,
        active_latency={20: 40},
        candidate_latency={24: 40},
        pairs=((0, 1, 3), (2, 1, 1)),
    )


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("muster-hub", 422, "invalid_name"),
        ("../x", 422, "invalid_input"),
        ("raw-1", 401, "not_authenticated"),
    ],
)
def test_a_name_that_is_not_to_be_had_is_refused(hub: HubProcess, name: str, status: int, code: str) -> None:
    secret = parse_token(hub.client.post("/enrolment-tokens")["token"]).secret
    secret = "x" * 43 if code == "not_authenticated" else secret
    request = EnrolmentRequest(secret, name, CAPABILITIES)
    response = httpx.post(f"{hub.url}/api/v1/enrol", content=msgspec.json.encode(request))
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_state_is_shown_and_silence_is_noticed(device: RawDevice) -> None:
    device.say(Up.HELLO, HELLO)
    device.say(Up.STATE, messages.encode(StateReport(at_s=1.0, sequence=0, models=())))
    eventually(lambda: device.hub.client.get(f"/devices/{device.id}")["online"], "online")
    device.say(Up.PRESENCE, messages.encode(messages.Presence(online=False)))
    eventually(lambda: not device.hub.client.get(f"/devices/{device.id}")["online"], "offline")
    assert device.hub.client.get(f"/devices/{device.id}")["health"] == "OFFLINE"


@pytest.mark.parametrize(
    "path",
    ["metadata/../keys/root.pem", "../hub.toml", "/etc/passwd", "keys/root.pem", "metadata/99.root.json"],
)
def test_a_file_outside_the_repository_is_not_given(device: RawDevice, path: str) -> None:
    device.say(Up.FETCH, messages.encode(FetchRequest(7, path)))
    assert messages.decode(device.hear(Down.FILE), FileAnswer) == FileAnswer(7, None)


def test_the_repository_is_given(device: RawDevice) -> None:
    device.say(Up.FETCH, messages.encode(FetchRequest(8, "metadata/timestamp.json")))
    answer = messages.decode(device.hear(Down.FILE), FileAnswer)
    assert answer.size_bytes == len(answer.data) > 0


def test_a_dataset_is_not_delivered_to_a_device(device: RawDevice) -> None:
    sha256 = device.hub.client.get("/datasets/digits")["sha256"]
    assert device.mqtt.subscribe(topics.blob_subscription(sha256))
    device.say(Up.WANT, messages.encode(messages.Want(sha256, ((0, 1),))))
    assert device.is_still_heard()
    assert device.mqtt.receives_nothing()
