"""The hub's way from the broker to the store, alone in the test's process: real MQTT, real SQLite, no API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fleet.flood import FloodLimits
from fleet.protocol import messages, topics
from fleet.protocol.errors import NotFound
from fleet.protocol.messages import Ack, FetchRequest, FileAnswer, Record
from fleet.protocol.records import RecordBody, packed
from fleet.protocol.topics import HUB_ACCOUNT, Down, Up
from hub.floods import Floods
from hub.ingest import Ingest
from hub.mqtt import HubMqtt
from hub.mqtt_packets import Published
from hub.store.sqlite import SqliteStore
from tests.support.brokers import HOST, RunningBroker
from tests.support.raw_mqtt import RawClient
from tests.support.stores import DIGEST, STREAM, add_device

TIMEOUT_S = 20.0
GENEROUS = FloodLimits(rate=1e6, burst=1e6, quarantine_after_s=60.0, quarantine_s=60.0)


class Intaking:
    """Ingest at work.

    Args:
        broker: Runs.
        folder: Where the database is.
        limits: What one device may do.
    """

    def __init__(self, broker: RunningBroker, folder: Path, limits: FloodLimits) -> None:
        self.broker = broker
        self.store = SqliteStore(folder / "hub.db")
        self.floods = Floods(self.store, limits)
        self.mqtt = HubMqtt(HOST, broker.port, HUB_ACCOUNT, broker.passwords[HUB_ACCOUNT], self._take)
        self.ingest = Ingest(
            self.store,
            self.floods,
            digest=_digest,
            publish=self.mqtt.publish,
            send=self.mqtt.send,
            demand=lambda _, __, ___: None,
            answer=_answer,
            on_behind=_ignore,
            take_sample=lambda _, __, ___: None,
            on_records=lambda: None,
            on_written=lambda _: None,
            dead_letters_kept=10_000,
        )

    def device(self) -> Device:
        """Return a new, enrolled device."""
        device_id = self.broker.new_device()
        add_device(self.store, device_id)
        return Device(self.broker, device_id)

    def kept(self, device: Device) -> int:
        """Return how many records of a device are stored."""
        return sum(row.device_id == device.id for row in self.store.raw_records_after(0, limit=10**6))

    async def _take(self, published: Sequence[Published]) -> None:
        await self.ingest.handle(published)


class Device:
    """A device without an agent: it says what the test says. Its methods block.

    Args:
        broker: Runs, and knows the account.
        device_id: The device.
    """

    def __init__(self, broker: RunningBroker, device_id: str) -> None:
        self.id = device_id
        self.mqtt = RawClient(broker.port, device_id, broker.passwords[device_id])
        self.mqtt.subscribe(topics.device_subscription(device_id))
        self._unacknowledged: dict[int, bytes] = {}

    def say(self, channel: Up, *payloads: bytes) -> None:
        """Publish bytes and do not wait."""
        self.mqtt.publish((topics.up(self.id, channel), payload) for payload in payloads)

    def report(self, numbers: Iterable[int], body: RecordBody) -> None:
        """Publish records and do not wait."""
        records = {number: record(number, body) for number in numbers}
        self._unacknowledged |= records
        self.say(Up.RECORD, *records.values())

    def acknowledged(self, count: int) -> set[int]:
        """Wait until so many different numbers are acknowledged; return them.

        What is not acknowledged is sent again, as devices do: old versions of Mosquitto lose some.
        """
        numbers: set[int] = set()
        deadline_s = time.monotonic() + TIMEOUT_S
        while len(numbers) < count:
            assert time.monotonic() < deadline_s, f"{len(numbers)} of {count} records are acknowledged"
            arrived = self.mqtt.receive(timeout_s=1.0)
            if not arrived:
                self.say(Up.RECORD, *self._unacknowledged.values())
            for message in arrived:
                if message.topic == topics.down(self.id, Down.ACK):
                    numbers.update(messages.decode(message.payload, Ack).numbers)
            for number in numbers:
                self._unacknowledged.pop(number, None)
        return numbers


def record(number: int, body: RecordBody) -> bytes:
    """Return a record as a device sends it."""
    return messages.encode(Record(STREAM, number, packed(body)))


@asynccontextmanager
async def running_ingest(
    broker: RunningBroker, folder: Path, limits: FloodLimits = GENEROUS
) -> AsyncIterator[Intaking]:
    """Run ingest for the time of a block."""
    intaking = Intaking(broker, folder, limits)
    running = asyncio.create_task(intaking.mqtt.run())
    try:
        await intaking.mqtt.wait_connected(TIMEOUT_S)
        yield intaking
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await intaking.ingest.close()
        intaking.store.close()


def _digest(model: str, version: int) -> str:
    if (model, version) != ("digits", 1):
        raise NotFound(f"There is no version {version} of {model!r:.80}.")
    return DIGEST


def _answer(requests: Sequence[FetchRequest]) -> list[FileAnswer]:
    return [FileAnswer(request.request_id, None) for request in requests]


async def _ignore(_: Sequence[str]) -> None:
    pass
