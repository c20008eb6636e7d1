"""Taking in what devices say: decode, validate, store, and only then acknowledge, a batch at a time.

::

    HubMqtt ── batch ──► BatchReader ── intake ──► store: one transaction ──► acknowledgements to devices
       ▲                                             │ fails                    │ wants, files, orders
       └── acknowledged to the broker ◄──────────────┼─────────────────────────┘
                                                     └► tried again: nothing is acknowledged, nothing read

A record is acknowledged to its device once it is committed; until then the device keeps it and sends it
again, so nothing depends on the broker's memory. While the store fails (its disk is full), the batch waits
here and the socket is not read any more, so memory stays bounded; the broker and the devices keep everything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Protocol

from fleet.protocol import messages, topics
from fleet.protocol.errors import InvalidInput, NotFound, StorageError, Unavailable
from fleet.protocol.messages import Ack, FetchRequest, FileAnswer, Want
from fleet.protocol.samples import SampleMessage
from fleet.protocol.topics import Down, Up
from hub.floods import Floods
from hub.ingest_batch import Batch, BatchReader, Request
from hub.mqtt_packets import Published
from hub.store.protocols import DeadLetterStore, DeviceStore, RecordStore
from hub.tasks import TaskSet

log = logging.getLogger(__name__)

MAX_NUMBERS = 1024
"""In one acknowledgement."""
FIRST_RETRY_S, GREATEST_RETRY_S = 0.1, 2.0

Publish = Callable[[str, bytes], Awaitable[None]]
Send = Callable[[Sequence[tuple[str, bytes]]], Awaitable[None]]
Answer = Callable[[Sequence[FetchRequest]], Sequence[FileAnswer]]
Demand = Callable[[str, Want, float], None]


class IngestStore(DeviceStore, RecordStore, DeadLetterStore, Protocol):
    """What ingest needs of the store."""


class Ingest:
    """Handles every message that devices publish.

    Args:
        store: Keeps what is taken in.
        floods: Says what is too much.
        digest: Returns the digest of a version's bundle; raises `NotFound`.
        publish: Publishes a payload on a topic.
        send: Publishes payloads on topics without waiting for the broker.
        demand: Takes a device's demand for chunks, and when that had reached the hub by `time.monotonic`.
        answer: Answers requests for files of the image repository, in their order.
        on_behind: Called with the devices that announced themselves and have not accepted their current
            assignment.
        on_records: Called when new records were stored.
        on_written: Told how long a batch took to be stored, in seconds.
        take_sample: Keeps a captured sample, see `hub.samples.Samples.take`; raises what refuses it.
        dead_letters_kept: How many dead letters are kept.
    """

    def __init__(
        self,
        store: IngestStore,
        floods: Floods,
        *,
        digest: Callable[[str, int], str],
        publish: Publish,
        send: Send,
        demand: Demand,
        answer: Answer,
        on_behind: Callable[[Sequence[str]], Coroutine[Any, Any, None]],
        on_records: Callable[[], None],
        on_written: Callable[[float], None],
        take_sample: Callable[[str, SampleMessage, float], None],
        dead_letters_kept: int,
    ) -> None:
        self._store = store
        self._reader = BatchReader(digest, floods.admit)
        self._publish = publish
        self._send = send
        self._demand = demand
        self._answer = answer
        self._on_behind = on_behind
        self._on_records = on_records
        self._on_written = on_written
        self._take_sample = take_sample
        self._dead_letters_kept = dead_letters_kept
        self._background = TaskSet()
        self.floods = floods
        self.messages_arrived = dict.fromkeys(Up, 0)
        self.messages_taken = 0
        self.messages_refused = 0
        self.batches = 0
        self.failed_writes = 0

    async def close(self) -> None:
        """Cancel the answers that are still on their way."""
        await self._background.cancel()

    async def handle(self, published: Sequence[Published]) -> None:
        """Take in messages; returns when what has to be stored is."""
        arrived_s = time.monotonic()
        batch = await asyncio.to_thread(self._reader.read, published, time.time())
        new = await self._stored(batch)
        self.batches += 1
        for channel, number in batch.arrived.items():
            self.messages_arrived[channel] += number
        self.messages_taken += batch.taken
        self.messages_refused += len(batch.letters)
        if new:
            self._on_records()
        await self._send([*_acknowledgements(batch)])
        fetches = []
        for request in batch.requests:
            if request.channel is Up.FETCH:
                fetches.append(request)
            else:
                await self._hand_on(request, arrived_s)
        if fetches:
            await self._fetch(fetches)
        behind = await asyncio.to_thread(self._behind, batch)
        if behind:
            self._background.start(self._try_to(self._on_behind(behind)))

    async def _stored(self, batch: Batch) -> int:
        """Store a batch, however long it takes; return how many records were new."""
        intake, wait_s = batch.intake(self._dead_letters_kept), FIRST_RETRY_S
        while True:
            started_s = time.perf_counter()
            try:
                new = await asyncio.to_thread(self._store.take_in, intake)
            except StorageError as error:
                self.failed_writes += 1
                log.error("%s Nothing is taken in until it can be stored.", error)
            else:
                self._on_written(time.perf_counter() - started_s)
                return new
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, GREATEST_RETRY_S)

    def _behind(self, batch: Batch) -> list[str]:
        """Return the devices that announced themselves and do not know their current assignment."""
        announced = {
            id_: said.hello.sequence for id_, said in batch.devices.items() if said.hello is not None
        }
        if not announced:
            return []
        current = self._store.sequences(announced)
        for device_id in announced.keys() - current.keys():
            log.warning("There is no device %r that announced itself.", device_id)
        return [device_id for device_id, sequence in current.items() if sequence > announced[device_id]]

    async def _hand_on(self, request: Request, arrived_s: float) -> None:
        try:
            if request.channel is Up.WANT:
                self._demand(request.device_id, messages.decode(request.payload, Want), arrived_s)
            else:
                await self._sample(request)
        except (InvalidInput, NotFound) as error:
            await self._refuse(request, error)

    async def _refuse(self, request: Request, error: InvalidInput | NotFound) -> None:
        self.messages_refused += 1
        # What a sample shows may be personal: of one that is refused, nothing is kept.
        payload = b"" if request.channel is Up.SAMPLE else request.payload
        letter = Batch(time.time()).letter(request.device_id, request.topic, payload, error)
        await asyncio.to_thread(self._store.add_dead_letters, [letter], kept=self._dead_letters_kept)

    async def _fetch(self, requests: Sequence[Request]) -> None:
        """Answer requests for files, those of a batch together: a stage's devices ask for the same ones."""
        asked: list[tuple[str, FetchRequest]] = []
        for request in requests:
            try:
                asked.append((request.device_id, messages.decode(request.payload, FetchRequest)))
            except InvalidInput as error:
                await self._refuse(request, error)
        try:
            answers = await asyncio.to_thread(self._answer, [fetch for _, fetch in asked])
        except StorageError as error:
            log.error("%s The files have to be asked for again.", error)
            return
        for (device_id, _), answer in zip(asked, answers, strict=True):
            topic = topics.down(device_id, Down.FILE)
            self._background.start(self._publish_or_drop(topic, messages.encode(answer)))

    async def _sample(self, request: Request) -> None:
        message = messages.decode(request.payload, SampleMessage)
        ack = messages.encode(Ack(message.stream, (message.number,)))
        topic = topics.down(request.device_id, Down.ACK)
        try:
            await asyncio.to_thread(self._take_sample, request.device_id, message, time.time())
        except StorageError as error:
            log.error("%s A sample of %s has to come again.", error, request.device_id)
            return
        except (InvalidInput, NotFound):
            self._background.start(self._publish_or_drop(topic, ack))  # sending it again would not help
            raise
        self._background.start(self._publish_or_drop(topic, ack))

    async def _publish_or_drop(self, topic: str, payload: bytes) -> None:
        """Publish what is asked for again by the device if it is lost."""
        await self._try_to(self._publish(topic, payload))

    async def _try_to(self, publish: Awaitable[None]) -> None:
        try:
            await publish
        except (Unavailable, StorageError) as error:
            log.warning("Something was not sent: %s", error)


def _acknowledgements(batch: Batch) -> Iterator[tuple[str, bytes]]:
    for (device_id, stream), numbers in batch.acknowledged.items():
        topic = topics.down(device_id, Down.ACK)
        for first in range(0, len(numbers), MAX_NUMBERS):
            ack = Ack(stream, tuple(numbers[first : first + MAX_NUMBERS]))
            yield topic, messages.encode(ack)
