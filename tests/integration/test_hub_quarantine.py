"""A device that floods a real hub: shown, counted, unhealthy, and let in again by an operator."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import msgspec

from fleet.protocol import messages, topics
from fleet.protocol.enrolment import EnrolmentAnswer, EnrolmentRequest, parse_token
from fleet.protocol.messages import Ack, Presence, Record
from fleet.protocol.topics import Down, Up
from tests.support.hub import HubProcess
from tests.support.raw_mqtt import RawClient
from tests.support.stores import CAPABILITIES, STREAM, incident
from tests.support.waiting import eventually

LIMITS = {
    "flood_messages_per_second": 20.0,
    "flood_burst_messages": 100,
    "flood_quarantine_after_s": 0.5,
    "flood_quarantine_s": 600.0,
}


def test_a_device_that_floods_is_quarantined_until_an_operator_lets_it_in(tmp_path: Path) -> None:
    with HubProcess(tmp_path / "hub", broker="embedded", settings=LIMITS) as hub:
        token = parse_token(hub.client.post("/enrolment-tokens")["token"])
        request = EnrolmentRequest(token.secret, "cam-1", CAPABILITIES)
        response = httpx.post(f"{hub.url}/api/v1/enrol", content=msgspec.json.encode(request))
        access = msgspec.json.decode(response.content, type=EnrolmentAnswer).broker
        topic = topics.up("cam-1", Up.RECORD)
        with RawClient(access.port, "cam-1", access.password) as device:
            device.subscribe(topics.device_subscription("cam-1"))
            online = (topics.up("cam-1", Up.PRESENCE), messages.encode(Presence(online=True)))
            number = 0

            def flooded() -> bool:
                nonlocal number
                records = [
                    (topic, messages.encode(Record(STREAM, number + step, incident()))) for step in range(200)
                ]
                number += len(records)
                device.publish([online, *records])
                device.receive(timeout_s=0.05)
                return hub.client.get("/devices/cam-1")["quarantine"] is not None

            eventually(flooded, "it is in quarantine")
            shown = hub.client.get("/devices/cam-1")
            assert shown["quarantine"]["until_s"] - shown["quarantine"]["since_s"] == 600.0
            assert "nothing that it sends is taken" in hub.muster("device", "show", "cam-1")
            metrics = httpx.get(f"{hub.url}/metrics").text
            assert "muster_devices_quarantined 1.0" in metrics
            entries = hub.client.get("/devices/cam-1/timeline", limit=10, kind=["incident"])["items"]
            assert any(entry["cause"]["code"] == "quarantined" for entry in entries)
            eventually(
                lambda: "in quarantine" in str(hub.client.get("/devices/cam-1")["reasons"]), "it is unhealthy"
            )
            lift = ("device", "lift-quarantine", "cam-1")
            hub.muster(*lift)

            def taken_again() -> bool:
                hub.muster(*lift, check=False)  # what still waits of the flood may have brought it back
                device.publish([(topic, messages.encode(Record("f" * 16, 1, incident())))])
                acks = [
                    messages.decode(message.payload, Ack)
                    for message in device.receive(timeout_s=1.0)
                    if message.topic == topics.down("cam-1", Down.ACK)
                ]
                return Ack("f" * 16, (1,)) in acks

            eventually(taken_again, "what it sends is taken again")
            assert "is not in quarantine" in hub.muster(*lift, check=False)
            after = json.loads(hub.muster("device", "show", "cam-1", "--json"))
            assert after["quarantine"] is None
            assert {action["text"] for action in after["actions"]} == {"Lifted the quarantine."}
