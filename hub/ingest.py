"""Taking in what devices say: decode, validate, store, and only then acknowledge.

A handler returns when its message needs no more care: the MQTT adapter acknowledges it to the broker after
that. A record is acknowledged to its device as well, once it is committed; until then the device keeps it
and sends it again, so nothing depends on the broker's memory. A message that cannot be taken in becomes a
dead letter with its cause and never stops the stream; if it is a record, it is acknowledged to its device all
the same, because sending it again would not help.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from fleet.drift.profile import ReferenceProfile
from fleet.protocol import messages, shadow, topics
from fleet.protocol.errors import InvalidMessage, MessageTooLarge, MusterError, NotFound, Unavailable
from fleet.protocol.heads import read_head
from fleet.protocol.messages import Ack, FetchRequest, FileAnswer, Hello, Presence, Record, StateReport, Want
from fleet.protocol.records import Measurement, ShadowReport, TelemetryWindow
from fleet.protocol.topics import Down, Up
from fleet.protocol.windows import check_window, contradiction
from fleet.variants import check_measurement
from hub.store.protocols import DeadLetterStore, DeviceStore, RecordStore
from hub.store.rows import DeadLetter, IncomingRecord
from hub.tasks import TaskSet

log = logging.getLogger(__name__)

MAX_DEAD_LETTER_BYTES = 4096

Publish = Callable[[str, bytes], Awaitable[None]]
Answer = Callable[[FetchRequest], FileAnswer]
Demand = Callable[[str, Want], None]


class IngestStore(DeviceStore, RecordStore, DeadLetterStore, Protocol):
    """What ingest needs of the store."""


class Ingest:
    """Handles every message that devices publish.

    Args:
        store: Keeps what is taken in.
        reference: Returns the reference profile of a version, and its bundle's digest; raises `NotFound`.
        publish: Publishes a payload on a topic.
        demand: Takes a device's demand for chunks.
        answer: Answers a request for a file of the image repository.
        on_behind: Called with a device id when the device has not accepted its current assignment.
        on_records: Called when new records were stored.
    """

    def __init__(
        self,
        store: IngestStore,
        *,
        reference: Callable[[str, int], tuple[str, ReferenceProfile]],
        publish: Publish,
        demand: Demand,
        answer: Answer,
        on_behind: Callable[[str], Coroutine[Any, Any, None]],
        on_records: Callable[[], None],
    ) -> None:
        self._store = store
        self._reference = reference
        self._publish = publish
        self._demand = demand
        self._answer = answer
        self._on_behind = on_behind
        self._on_records = on_records
        self._background = TaskSet()
        self._handlers: dict[Up, Callable[[str, bytes], Awaitable[None]]] = {
            Up.HELLO: self._hello,
            Up.STATE: self._state,
            Up.RECORD: self._record,
            Up.WANT: self._want,
            Up.FETCH: self._fetch,
            Up.PRESENCE: self._presence,
        }
        self.messages_taken = 0
        self.messages_refused = 0

    async def close(self) -> None:
        """Cancel the answers that are still on their way."""
        await self._background.cancel()

    async def handle(self, topic: str, payload: bytes) -> None:
        """Take in one message; returns when it is stored or given up with a dead letter.

        Raises:
            StorageError: It could not be stored; a record is then sent again by its device.
        """
        try:
            device_id, channel = topics.parse_up(topic)
            await self._handlers[channel](device_id, payload)
            self.messages_taken += 1
        except (InvalidMessage, MessageTooLarge, NotFound) as error:
            await self._refuse(topic, payload, error)

    async def _refuse(self, topic: str, payload: bytes, error: MusterError) -> None:
        self.messages_refused += 1
        letter = DeadLetter(topic[:256], time.time(), error.cause(), payload[:MAX_DEAD_LETTER_BYTES])
        await asyncio.to_thread(self._store.add_dead_letters, [letter])

    async def _hello(self, device_id: str, payload: bytes) -> None:
        hello = messages.decode(payload, Hello)
        if hello.protocol != messages.PROTOCOL_VERSION:
            raise InvalidMessage(
                f"{device_id} speaks protocol {hello.protocol}; this hub speaks {messages.PROTOCOL_VERSION}."
            )
        await asyncio.to_thread(self._store.hello, device_id, hello.capabilities, hello.sequence, time.time())
        desired = await asyncio.to_thread(self._store.desired, device_id)
        if desired.sequence > hello.sequence:
            self._background.start(self._on_behind(device_id))

    async def _state(self, device_id: str, payload: bytes) -> None:
        report = messages.decode(payload, StateReport)
        await asyncio.to_thread(self._store.report, device_id, report, time.time())

    async def _presence(self, device_id: str, payload: bytes) -> None:
        presence = messages.decode(payload, Presence)
        await asyncio.to_thread(self._store.set_online, device_id, presence.online, time.time())

    async def _want(self, device_id: str, payload: bytes) -> None:
        self._demand(device_id, messages.decode(payload, Want))

    async def _fetch(self, device_id: str, payload: bytes) -> None:
        answer = await asyncio.to_thread(self._answer, messages.decode(payload, FetchRequest))
        self._send(topics.down(device_id, Down.FILE), messages.encode(answer))

    async def _record(self, device_id: str, payload: bytes) -> None:
        record = messages.decode(payload, Record)
        body = record.body
        try:
            if isinstance(body, TelemetryWindow | Measurement | ShadowReport):
                digest, profile = await asyncio.to_thread(self._reference, body.model, body.version)
                if isinstance(body, TelemetryWindow):
                    check_window(body, digest, profile)
                elif isinstance(body, Measurement):
                    check_measurement(body, digest)
                else:
                    shadow.check_report(body, digest)
        except (InvalidMessage, NotFound):
            self._acknowledge(device_id, record)
            raise
        incoming = IncomingRecord(device_id, time.time(), read_head(payload), payload)
        new = await asyncio.to_thread(self._store.add_records, [incoming])
        self._acknowledge(device_id, record)
        if not new:
            return
        self._on_records()
        if isinstance(body, TelemetryWindow):
            _refuse_contradiction("window", contradiction(body))
        elif isinstance(body, ShadowReport):
            _refuse_contradiction("report of a shadow", shadow.contradiction(body))

    def _acknowledge(self, device_id: str, record: Record) -> None:
        ack = Ack(record.stream, (record.number,))
        self._send(topics.down(device_id, Down.ACK), messages.encode(ack))

    def _send(self, topic: str, payload: bytes) -> None:
        """Publish without waiting: what is lost here is asked for again by the device."""
        self._background.start(self._publish_or_drop(topic, payload))

    async def _publish_or_drop(self, topic: str, payload: bytes) -> None:
        try:
            await self._publish(topic, payload)
        except Unavailable as error:
            log.warning("Nothing was published on %s: %s", topic, error)


def _refuse_contradiction(what: str, why: str | None) -> None:
    """Refuse what cannot be true: it is kept as evidence, counted nowhere, and shown to people."""
    if why is not None:
        raise InvalidMessage(f"The {what} contradicts itself: {why}.")
