"""Delivery's effects: chunks are read, sent and counted; files are answered in parts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fleet.protocol.chunks import CHUNK_SIZE_BYTES
from fleet.protocol.director import DirectorKeys
from fleet.protocol.errors import BrokerUnavailable
from fleet.protocol.messages import FILE_PART_SIZE_BYTES, FetchRequest, Want
from fleet.protocol.topics import chunk
from hub.delivery.blobs import BlobPublisher
from hub.delivery.files import answer_fetches
from hub.delivery.queue import ChunkQueue
from hub.store.blobs import BlobFolder
from hub.trust.image_repository import ImageRepository
from hub.trust.keys import KeyFolder
from tests.support.waiting import eventually_async

DATA = bytes(i * 11 % 253 for i in range(2 * CHUNK_SIZE_BYTES + 5))


class Wire:
    """Takes what is published, and can be cut."""

    def __init__(self) -> None:
        self.sent: dict[str, list[bytes]] = {}
        self.cut = False

    async def publish(self, topic: str, payload: bytes) -> None:
        if self.cut:
            raise BrokerUnavailable("The wire is cut.")
        self.sent.setdefault(topic, []).append(payload)


def _run(blobs: BlobFolder, wire: Wire, story: Callable[[BlobPublisher], Awaitable[None]]) -> BlobPublisher:
    async def main() -> BlobPublisher:
        publisher = BlobPublisher(blobs, wire.publish, queue=ChunkQueue(gather_s=0.02))
        running = asyncio.create_task(publisher.run())
        await story(publisher)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        return publisher

    return asyncio.run(main())


def test_devices_that_want_the_same_blob_get_it_once(tmp_path: Path) -> None:
    blobs, wire = BlobFolder(tmp_path), Wire()
    sha256 = blobs.put(DATA)

    async def story(publisher: BlobPublisher) -> None:
        for device in range(8):
            publisher.want(f"cam-{device}", Want(sha256, ((0, 3),)), time.monotonic())
        await eventually_async(lambda: publisher.counters.chunks_sent == 3)

    counters = _run(blobs, wire, story).counters
    assert [wire.sent[chunk(sha256, i)] for i in range(3)] == [
        [DATA[i * CHUNK_SIZE_BYTES : (i + 1) * CHUNK_SIZE_BYTES]] for i in range(3)
    ]
    assert counters.bytes_sent == len(DATA)


def test_an_unknown_blob_is_counted_and_ignored(tmp_path: Path) -> None:
    blobs, wire = BlobFolder(tmp_path), Wire()
    sha256 = blobs.put(DATA)

    async def story(publisher: BlobPublisher) -> None:
        for _ in range(3):
            publisher.want("cam-1", Want("0" * 64, ((0, 3),)), time.monotonic())
        publisher.want("cam-1", Want(sha256, ((2, 1),)), time.monotonic())
        await eventually_async(lambda: publisher.counters.chunks_sent == 1)

    assert _run(blobs, wire, story).counters.unknown_wants == 3
    assert list(wire.sent) == [chunk(sha256, 2)]


def test_without_a_broker_chunks_are_forgotten_until_they_are_asked_for_again(tmp_path: Path) -> None:
    blobs, wire = BlobFolder(tmp_path), Wire()
    sha256 = blobs.put(DATA)
    wire.cut = True

    async def story(publisher: BlobPublisher) -> None:
        publisher.want("cam-1", Want(sha256, ((0, 3),)), time.monotonic())
        await eventually_async(lambda: publisher.counters.failed_chunks == 3)
        wire.cut = False
        publisher.want("cam-1", Want(sha256, ((0, 3),)), time.monotonic())
        await eventually_async(lambda: publisher.counters.chunks_sent == 3)

    assert _run(blobs, wire, story).counters.bytes_sent == len(DATA)


def test_a_damaged_blob_is_not_sent_and_stops_no_other(tmp_path: Path) -> None:
    blobs, wire = BlobFolder(tmp_path), Wire()
    damaged, sound = blobs.put(DATA), blobs.put(b"sound")
    path = tmp_path / damaged[:2] / damaged
    path.chmod(0o644)
    path.write_bytes(DATA[:-1] + b"!")

    async def story(publisher: BlobPublisher) -> None:
        publisher.want("cam-1", Want(damaged, ((0, 3),)), time.monotonic())
        publisher.want("cam-1", Want(sound, ((0, 1),)), time.monotonic())
        counters = publisher.counters
        await eventually_async(lambda: (counters.chunks_sent, counters.failed_chunks) == (1, 3))

    _run(blobs, wire, story)
    assert wire.sent == {chunk(sound, 0): [b"sound"]}


@pytest.fixture
def repository(tmp_path: Path) -> ImageRepository:
    keys = KeyFolder(tmp_path / "keys")
    keys.create_missing()
    made = ImageRepository(tmp_path / "repository", keys)
    made.create(DirectorKeys(keys=("ab" * 32,)), time.time())
    return made


def test_a_file_is_answered_in_parts(repository: ImageRepository, tmp_path: Path) -> None:
    large = bytes(i % 256 for i in range(2 * FILE_PART_SIZE_BYTES + 9))
    repository.release("digits/1.json", large, time.time())
    stored = next((tmp_path / "repository" / "targets" / "digits").iterdir())
    path, collected = f"targets/digits/{stored.name}", b""
    while True:
        [answer] = answer_fetches([FetchRequest(7, path, len(collected))], repository)
        assert (answer.request_id, answer.size_bytes) == (7, len(large))
        assert len(answer.data) <= FILE_PART_SIZE_BYTES
        if not answer.data:
            break
        collected += answer.data
    assert collected == large


@pytest.mark.parametrize("path", ["metadata/99.root.json", "../keys/root.pem", ""])
def test_a_file_that_is_not_there_has_no_size(repository: ImageRepository, path: str) -> None:
    [answer] = answer_fetches([FetchRequest(1, path, 0)], repository)
    assert (answer.size_bytes, answer.data) == (None, b"")


def test_an_offset_beyond_the_end_gets_nothing(repository: ImageRepository) -> None:
    [answer] = answer_fetches([FetchRequest(1, "metadata/1.root.json", 2**53)], repository)
    assert answer.data == b""
    assert answer.size_bytes == len(repository.first_root())
