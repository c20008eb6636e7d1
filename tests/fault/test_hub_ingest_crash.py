"""The hub is killed under load, again and again: no record is lost, and none is counted twice."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from pathlib import Path

import httpx
import msgspec
import pytest

from fleet.protocol import messages, topics
from fleet.protocol.enrolment import EnrolmentAnswer, EnrolmentRequest, parse_token
from fleet.protocol.messages import Ack, Record
from fleet.protocol.topics import Down, Up
from hub.store.sqlite import SqliteStore
from tests.support.brokers import require_mosquitto
from tests.support.hub import HubProcess
from tests.support.raw_mqtt import Ended, RawClient
from tests.support.stores import CAPABILITIES, STREAM, window
from tests.support.thoroughness import ALL
from tests.support.waiting import eventually

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]  # many starts, slow on a busy machine

DEVICES = 3
RECORDS, KILLS = (3000, 5) if ALL else (500, 1)
TIMEOUT_S = 90.0


class Reporter(threading.Thread):
    """A device that sends its records again and again until the hub has acknowledged each.

    Args:
        hub: Runs, mostly.
        device_id: The device.
        digest: Of the bundle that its windows are of.
    """

    def __init__(self, hub: HubProcess, device_id: str, digest: str) -> None:
        super().__init__(daemon=True)
        token = parse_token(hub.client.post("/enrolment-tokens")["token"])
        request = EnrolmentRequest(token.secret, device_id, CAPABILITIES)
        response = httpx.post(f"{hub.url}/api/v1/enrol", content=msgspec.json.encode(request))
        answer = msgspec.json.decode(response.content, type=EnrolmentAnswer)
        self._port, self._password = answer.broker.port, answer.broker.password
        self.device_id = device_id
        body = msgspec.structs.replace(window(predictions=3), manifest_sha256=digest)
        self._waiting = {
            number: messages.encode(Record(STREAM, number, body)) for number in range(1, RECORDS + 1)
        }
        self.may_send = 0
        """Up to which number; so nobody is done before the last kill, however late that comes."""
        self.ended = threading.Event()

    @property
    def acknowledged(self) -> int:
        """How many records are acknowledged."""
        return RECORDS - len(self._waiting)

    def run(self) -> None:
        while self._waiting and not self.ended.is_set():
            with (
                contextlib.suppress(Ended, OSError),
                RawClient(self._port, self.device_id, self._password) as client,
            ):
                client.subscribe(topics.device_subscription(self.device_id))
                while self._waiting and not self.ended.is_set():
                    self._send_and_hear(client)

    def _send_and_hear(self, client: RawClient) -> None:
        """Send the oldest that it may, some twice, and take acknowledgements until none comes for a while."""
        topic = topics.up(self.device_id, Up.RECORD)
        oldest = [(topic, data) for number, data in sorted(self._waiting.items()) if number <= self.may_send]
        oldest = oldest[:100]
        client.publish(oldest + oldest[::10])
        while arrived := client.receive(timeout_s=0.1):
            for message in arrived:
                if message.topic == topics.down(self.device_id, Down.ACK):
                    for number in messages.decode(message.payload, Ack).numbers:
                        self._waiting.pop(number, None)


def test_a_hub_killed_under_load_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    require_mosquitto()
    with HubProcess(tmp_path / "hub", broker="mosquitto") as hub:
        version = hub.train_and_release(
            "digits", estimator="logistic", hyperparameters={"training_share": 0.2}
        )
        digest = hub.client.get(f"/models/digits/versions/{version}")["manifest_sha256"]
        reporters = [Reporter(hub, f"cam-{number}", digest) for number in range(DEVICES)]
        for reporter in reporters:
            reporter.start()
        for kill in range(KILLS):
            reached = (kill + 1) * DEVICES * RECORDS // (KILLS + 2)
            for reporter in reporters:
                reporter.may_send = (kill + 2) * RECORDS // (KILLS + 2)
            eventually(
                lambda: sum(each.acknowledged for each in reporters) >= reached,  # noqa: B023 - asked at once
                "the moment to kill",
                timeout_s=TIMEOUT_S,
            )
            assert all(each.is_alive() for each in reporters), "somebody sends no more"
            hub.kill()
            hub.start()
        for reporter in reporters:
            reporter.may_send = RECORDS
        for reporter in reporters:
            reporter.join(TIMEOUT_S)
            reporter.ended.set()
            assert reporter.acknowledged == RECORDS
        expected = {reporter.device_id: 3 * RECORDS for reporter in reporters}
        eventually(lambda: _predictions(hub) == expected, "each is counted once", timeout_s=TIMEOUT_S)
    store = SqliteStore(hub.home / "hub.db")
    kept = Counter(
        (raw.device_id, msgspec.msgpack.decode(raw.data)["number"])
        for raw in store.raw_records_after(0, limit=10**6)
    )
    store.close()
    assert set(kept) == {(each.device_id, n) for each in reporters for n in range(1, RECORDS + 1)}
    assert set(kept.values()) == {1}


def _predictions(hub: HubProcess) -> dict[str, int]:
    return {total["device_id"]: total["predictions"] for total in hub.client.get("/fleet/totals")["items"]}
