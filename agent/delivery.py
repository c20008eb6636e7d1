"""Delivery: getting the blobs of a bundle over MQTT, however often the way breaks.

For each blob that is missing::

    free space?  →  subscribe, wait for SUBACK  →  Want(missing ranges)  →  chunks  →  SHA-256  →  whole
                                                        ↑                     │
                                                        └── stalled, window ──┘
                                                            full, reconnected

The hub publishes each chunk to everybody who listens, so chunks may come that nobody here asked for, twice,
or never. A stall is answered by asking again for what is missing, after a growing wait; so many stalls in a
row end the delivery. Time without a connection does not count: an offline device waits. Wrong digests end
it after bounded retries: somebody alters bytes, or the memory is bad.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from weakref import WeakValueDictionary

from agent.backoff import Backoff
from agent.blobs import BlobStore, Partial
from agent.connection import Done
from agent.mqtt import Link
from agent.settings import Settings
from agent.threads import run_to_end
from fleet.protocol.chunks import MAX_RANGES, chunk_size_bytes, indices_of, ranges_of
from fleet.protocol.errors import (
    BrokerUnavailable,
    DeliveryTimedOut,
    DigestMismatch,
    InvalidMessage,
    MusterError,
    NoSpace,
)
from fleet.protocol.manifest import File
from fleet.protocol.messages import Want, encode
from fleet.protocol.topics import ChunkTopic, Up, blob_subscription, up

log = logging.getLogger(__name__)


class _Receiver:
    """Takes the chunks of one blob from the event loop and writes them in a thread, in batches.

    Args:
        file: The blob.
        part: Where chunks go.
    """

    def __init__(self, file: File, part: Partial) -> None:
        self._file = file
        self._part = part
        self._batch: list[tuple[int, bytes, Done]] = []
        self._arrived = asyncio.Event()
        self._interrupted = False

    def take(self, number: int, data: bytes, done: Done) -> None:
        """Take a chunk; ``done`` is called when it has been written.

        Raises:
            InvalidMessage: It has the wrong size, so it cannot be this chunk.
        """
        if len(data) != chunk_size_bytes(self._file.size_bytes, number) or not data:
            raise InvalidMessage(
                f"Chunk {number} of blob {self._file.sha256[:12]}… has the wrong size, {len(data)} bytes."
            )
        self._batch.append((number, data, done))
        self._arrived.set()

    @property
    def was_interrupted(self) -> bool:
        """Whether the last `receive` ended because the connection changed."""
        return self._interrupted

    def interrupt(self) -> None:
        """End the current `receive`: what was asked for may be lost, ask again."""
        self._interrupted = True
        self._arrived.set()

    async def receive(self, wanted: set[int], timeout_s: float) -> bool:
        """Write what arrives until none of the wanted chunks is missing, or nothing new arrived for a while.

        Args:
            wanted: Numbers that were asked for.
            timeout_s: How long nothing may arrive.

        Returns:
            Whether anything new was written.

        Raises:
            StorageError: A chunk cannot be written.
        """
        clock = asyncio.get_running_loop().time
        deadline_s, progress = clock() + timeout_s, False
        self._interrupted = False
        while any(self._part.wants(number) for number in wanted):
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._arrived.wait()
            except TimeoutError:
                break
            self._arrived.clear()
            if await self._write_batch():
                deadline_s, progress = clock() + timeout_s, True
            if self._interrupted:
                break
        return progress

    async def _write_batch(self) -> bool:
        """Write and acknowledge what arrived; tell whether any of it was new."""
        batch, self._batch = self._batch, []
        chunks = [(number, data) for number, data, _ in batch if self._part.wants(number)]
        try:
            if chunks:
                await run_to_end(lambda: self._part.write(chunks))
        finally:
            for _, _, done in batch:
                done()
        return bool(chunks)

    def close(self) -> None:
        """Acknowledge what came and is no longer wanted."""
        for _, _, done in self._batch:
            done()
        self._batch = []


class Delivery:
    """Gets blobs.

    Args:
        device_id: This device.
        link: The way to the broker.
        store: Where blobs are kept.
        settings: Timeouts, attempts and the reserve of free space.
        on_incident: Told of what a person may have to know.
        backoff: Makes the waits between stalls of one blob.
    """

    def __init__(
        self,
        device_id: str,
        link: Link,
        store: BlobStore,
        settings: Settings,
        *,
        on_incident: Callable[[MusterError], None],
        backoff: Callable[[], Backoff],
    ) -> None:
        self._want_topic = up(device_id, Up.WANT)
        self._link = link
        self._store = store
        self._settings = settings
        self._on_incident = on_incident
        self._backoff = backoff
        self._receivers: dict[str, _Receiver] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._background: set[asyncio.Task[None]] = set()

    def on_connected(self) -> None:
        """Ask again for what was asked for over the connection before."""
        for receiver in self._receivers.values():
            receiver.interrupt()

    def on_chunk(self, topic: ChunkTopic, data: bytes, done: Done) -> None:
        """Take a chunk from the broker; ``done`` is called once, when it was written or is not wanted.

        Raises:
            InvalidMessage: It has the wrong size; it was acknowledged.
        """
        receiver = self._receivers.get(topic.sha256)
        if receiver is None:
            done()
            self._leave(blob_subscription(topic.sha256))
            return
        try:
            receiver.take(topic.number, data, done)
        except InvalidMessage:
            done()
            raise

    async def fetch(self, files: Iterable[File]) -> None:
        """Get every one of the files that is not here.

        Raises:
            NoSpace: They do not fit; checked before a byte is written.
            DeliveryTimedOut: Chunks did not come, after bounded retries.
            DigestMismatch: A blob came with wrong bytes, after bounded retries.
            StorageError: Chunks cannot be written.
        """
        missing = {}
        for file in files:
            if not await run_to_end(partial(self._store.has, file)):
                missing[file.sha256] = file
        self._check_space(sum(self._store.partial(file).missing_bytes for file in missing.values()))
        for file in missing.values():
            lock = self._locks.setdefault(file.sha256, asyncio.Lock())
            async with lock:  # another model may need the same blob
                if not await run_to_end(partial(self._store.has, file)):
                    await self._fetch(file, self._store.partial(file))

    def _leave(self, pattern: str) -> None:
        """End a subscription that the session still has from before a restart."""
        if not self._link.is_subscribed(pattern):
            task = asyncio.ensure_future(self._link.unsubscribe(pattern))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    def _check_space(self, needed_bytes: int) -> None:
        free_bytes = shutil.disk_usage(self._store.folder).free
        reserve_bytes = self._settings.reserve_free_bytes
        if needed_bytes and free_bytes < needed_bytes + reserve_bytes:
            raise NoSpace(
                f"The download needs {needed_bytes} bytes and {reserve_bytes} are kept in reserve, "
                f"but only {free_bytes} are free.",
                remedy="Free some space on the device.",
            )

    async def _fetch(self, file: File, part: Partial) -> None:
        for attempt in range(1, self._settings.delivery_digest_attempts + 1):
            await self._receive(file, part)
            try:
                await run_to_end(part.finish)
            except DigestMismatch as error:
                self._on_incident(error)
                if attempt == self._settings.delivery_digest_attempts:
                    raise
            else:
                return
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _receive(self, file: File, part: Partial) -> None:
        """Get every missing chunk of one blob."""
        if not part.missing():
            return
        receiver = self._receivers[file.sha256] = _Receiver(file, part)
        pattern = blob_subscription(file.sha256)
        backoff = self._backoff()
        try:
            while missing := part.missing():
                await self._link.wait_connected()
                ranges = ranges_of(missing[: self._settings.delivery_window_chunks])[:MAX_RANGES]
                try:
                    if backoff.failures or not self._link.is_subscribed(pattern):
                        await self._link.subscribe(pattern)
                    await self._link.publish(self._want_topic, encode(Want(file.sha256, tuple(ranges))))
                except BrokerUnavailable:
                    await asyncio.sleep(self._settings.backoff_minimum_s)
                    continue
                wanted = set(indices_of(ranges, missing[-1] + 1))
                if await receiver.receive(wanted, self._settings.delivery_timeout_s):
                    backoff.reset()
                elif self._link.is_connected and not receiver.was_interrupted:
                    await self._after_stall(file, backoff)
        finally:
            del self._receivers[file.sha256]
            receiver.close()
            await asyncio.shield(self._link.unsubscribe(pattern))

    async def _after_stall(self, file: File, backoff: Backoff) -> None:
        wait_s = backoff.next_s()
        if backoff.failures >= self._settings.delivery_attempts:
            raise DeliveryTimedOut(
                f"Chunks of blob {file.sha256[:12]}… did not come, asked for {backoff.failures} times."
            )
        log.warning("Blob %s stalls; it is asked for again in %.1f s.", file.sha256[:12], wait_s)
        await asyncio.sleep(wait_s)
