"""Delivery end to end over real brokers: devices ask, each chunk is published once, everyone has the blob."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fleet.protocol.chunks import chunk_count
from fleet.protocol.messages import Want, decode, encode
from fleet.protocol.topics import HUB_ACCOUNT, Up, blob_subscription, parse_chunk, parse_up, up
from hub.broker.kinds import KINDS, Kind
from hub.delivery.blobs import BlobPublisher, DeliveryCounters
from hub.delivery.queue import ChunkQueue
from hub.mqtt import HubMqtt
from hub.store.blobs import BlobFolder
from tests.support.brokers import HOST, RunningBroker, running_broker
from tests.support.handlers import one_by_one
from tests.support.mqtt_client import Client
from tests.support.waiting import eventually_async

TIMEOUT_S = 30.0
BLOB = random.Random(1).randbytes(1_500_000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_blob_reaches_every_device_and_is_sent_once(kind: Kind, tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path / "blobs")
    sha256 = blobs.put(BLOB)
    with running_broker(kind, tmp_path / "broker") as broker:
        devices = [Client(broker, broker.new_device()).wait_connected() for _ in range(4)]
        for device in devices:
            assert device.subscribe(blob_subscription(sha256))
        received, counters = asyncio.run(_story(broker, blobs, sha256, devices))
        for device in devices:
            device.close()
    assert [hashlib.sha256(data).hexdigest() for data in received] == [sha256] * len(devices)
    assert counters.bytes_sent == len(BLOB)
    assert counters.chunks_sent == chunk_count(len(BLOB))


async def _story(
    broker: RunningBroker, blobs: BlobFolder, sha256: str, devices: list[Client]
) -> tuple[list[bytes], DeliveryCounters]:
    asked: set[str] = set()

    async def handle(topic: str, payload: bytes) -> None:
        device_id, channel = parse_up(topic)
        assert channel is Up.WANT
        publisher.want(device_id, decode(payload, Want), time.monotonic())
        asked.add(device_id)

    hub = HubMqtt(HOST, broker.port, HUB_ACCOUNT, broker.passwords[HUB_ACCOUNT], one_by_one(handle))
    publisher = BlobPublisher(blobs, hub.publish, queue=ChunkQueue(gather_s=0.0))
    async with asyncio.timeout(TIMEOUT_S):
        running = [asyncio.create_task(hub.run())]
        await hub.wait_connected(TIMEOUT_S)
        fetching = asyncio.gather(*(asyncio.to_thread(_fetch, device, sha256) for device in devices))
        await eventually_async(lambda: len(asked) == len(devices), "all have asked")
        running.append(asyncio.create_task(publisher.run()))
        received = await fetching
        await eventually_async(  # devices can have the last chunk before the hub has its acknowledgement
            lambda: publisher.counters.chunks_sent >= chunk_count(len(BLOB)), "every chunk is acknowledged"
        )
        for task in running:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    return received, publisher.counters


def _fetch(device: Client, sha256: str) -> bytes:
    """Ask for the whole blob and put its chunks together, as a device does."""
    count = chunk_count(len(BLOB))
    device.publish(up(device.username, Up.WANT), encode(Want(sha256, ((0, count),))))
    chunks: dict[int, bytes] = {}
    while len(chunks) < count:
        message = device.receive()
        named = parse_chunk(message.topic)
        assert named is not None
        assert named.sha256 == sha256
        chunks[named.number] = message.payload
    return b"".join(chunks[number] for number in range(count))
