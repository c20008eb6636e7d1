"""Publishes the chunks that devices ask for, each once for all of them.

What to send next is decided in `hub.delivery.queue`; here it is read, sent and counted. A chunk that could
not be sent is forgotten: the devices that miss it ask again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from fleet.protocol.chunks import chunk_count
from fleet.protocol.errors import BrokerUnavailable, NotFound, StorageError
from fleet.protocol.messages import Want
from fleet.protocol.topics import chunk
from hub.delivery.queue import Chunk, ChunkQueue
from hub.store.blobs import BlobFolder

SENDERS = 8
"""Chunks on their way to the broker at the same time; with 64 KiB each, half a mebibyte of memory."""

log = logging.getLogger(__name__)


@dataclass
class DeliveryCounters:
    """What was sent and refused since the start, for metrics.

    Attributes:
        bytes_sent: Bytes of chunks that the broker acknowledged, counted once however many devices got them.
        chunks_sent: Their number.
        unknown_wants: Requests for blobs that the hub does not have.
        limited_chunks: Chunks refused to a device that asked for its blob too often.
        dropped_chunks: Chunks refused because the queue was full.
        failed_chunks: Chunks that could not be read or sent.
    """

    bytes_sent: int = 0
    chunks_sent: int = 0
    unknown_wants: int = 0
    limited_chunks: int = 0
    dropped_chunks: int = 0
    failed_chunks: int = 0


class BlobPublisher:
    """Sends chunks while `run` runs.

    Args:
        blobs: Where the blobs are.
        publish: Sends a payload to a topic; returns when the broker has it, raises `BrokerUnavailable`.
        queue: Decides what is next.
    """

    def __init__(
        self,
        blobs: BlobFolder,
        publish: Callable[[str, bytes], Awaitable[None]],
        *,
        queue: ChunkQueue | None = None,
    ) -> None:
        self._blobs = blobs
        self._publish = publish
        self._queue = ChunkQueue() if queue is None else queue
        self._wake = asyncio.Event()
        self.counters = DeliveryCounters()

    def want(self, device_id: str, want: Want, asked_s: float) -> None:
        """Take a device's request. Returns at once; a blob that does not exist is counted and ignored.

        Args:
            device_id: Who asks.
            want: What is missing.
            asked_s: When it had reached the hub, by `time.monotonic`.
        """
        try:
            size_bytes = self._blobs.size_bytes(want.sha256)
        except NotFound:
            self._count_unknown(device_id, want.sha256)
            return
        admission = self._queue.add(
            device_id,
            want.sha256,
            want.missing,
            chunks=chunk_count(size_bytes),
            now_s=time.monotonic(),
            asked_s=asked_s,
        )
        self.counters.limited_chunks += admission.limited
        self.counters.dropped_chunks += admission.dropped
        if admission.queued:
            self._wake.set()

    def _count_unknown(self, device_id: str, sha256: str) -> None:
        self.counters.unknown_wants += 1
        count = self.counters.unknown_wants
        if count.bit_count() == 1:  # the 1st, 2nd, 4th, 8th …: a flood stays readable
            log.warning("%s asked for the unknown blob %s, unknown request %d.", device_id, sha256, count)

    async def run(self) -> None:
        """Send chunks until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(SENDERS):
                tasks.create_task(self._send_chunks())

    async def _send_chunks(self) -> None:
        while True:
            due = self._queue.next(time.monotonic())
            if due is not None:
                await self._send(due)
                continue
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._queue.due_in_s(time.monotonic())):
                    await self._wake.wait()

    async def _send(self, due: Chunk) -> None:
        try:
            data = await asyncio.to_thread(self._blobs.read_chunk, due.sha256, due.number)
            await self._publish(chunk(due.sha256, due.number), data)
        except BrokerUnavailable:
            self.counters.failed_chunks += 1
        except (NotFound, StorageError) as error:
            self.counters.failed_chunks += 1 + self._queue.discard(due.sha256)
            log.error("Blob %s cannot be delivered: %s", due.sha256, error)
        else:
            self.counters.chunks_sent += 1
            self.counters.bytes_sent += len(data)
