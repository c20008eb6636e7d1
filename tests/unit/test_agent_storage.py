"""The agent's files that were damaged or left over: nothing is overwritten, nothing stale is believed."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from agent import durable
from agent.backoff import Backoff
from agent.blobs import BlobStore, Partial
from agent.telemetry.outbox import Outbox
from agent.trust.fetcher import FileClient
from agent.trust.image_repository import DOWNLOADS_FOLDER, ImageRepository
from fleet.protocol.chunks import CHUNK_SIZE_BYTES
from fleet.protocol.errors import BrokerUnavailable, Cause, StorageCorrupt
from fleet.protocol.manifest import File
from fleet.protocol.records import Incident
from tests.support.agent_repository import Repository

PLENTY = 10**8
INCIDENT = Incident(1.0, StorageCorrupt("Damaged.").cause())


async def _offline(_data: bytes = b"") -> None:
    raise BrokerUnavailable("There is no broker.")


def _backoff() -> Backoff:
    return Backoff(0.1, 0.1)


def test_every_damaged_outbox_is_kept_with_its_log(tmp_path: Path) -> None:
    path = tmp_path / "o"
    for number in range(3):
        path.write_bytes(bytes([number + 1]) * 5000)
        path.with_name("o-wal").write_bytes(bytes([number + 101]) * 100)
        outbox = Outbox(path, PLENTY)
        outbox.put(INCIDENT)
        outbox.close()
    for number, name in enumerate(["o.damaged", "o.damaged-2", "o.damaged-3"]):
        assert (tmp_path / name).read_bytes() == bytes([number + 1]) * 5000
        assert (tmp_path / f"{name}-wal").read_bytes() == bytes([number + 101]) * 100


def test_a_log_without_its_database_is_kept(tmp_path: Path) -> None:
    (tmp_path / "o-wal").write_bytes(b"a log")
    outbox = Outbox(tmp_path / "o", PLENTY)
    outbox.put(INCIDENT)
    assert outbox.damage is None
    assert (tmp_path / "o.damaged-wal").read_bytes() == b"a log"
    outbox.close()


def test_damage_that_is_found_while_it_runs_begins_a_new_outbox(tmp_path: Path) -> None:
    path = tmp_path / "o"
    outbox = Outbox(path, PLENTY)
    outbox.put(*[Incident(1.0, Cause("error", "x" * 2000))] * 3000)  # more than SQLite keeps in memory
    outbox.close()
    outbox = Outbox(path, PLENTY)
    before = outbox.stream
    with path.open("r+b") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xff" * (size_bytes - 4096))
    with pytest.raises(StorageCorrupt):
        outbox.take(3000, beside=set())
    assert outbox.damage is not None
    outbox.put(INCIDENT)
    assert len(outbox) == 1
    assert outbox.stream != before
    outbox.close()


def test_a_journal_without_its_part_vouches_for_nothing(tmp_path: Path) -> None:
    data = bytes(range(256)) * (3 * CHUNK_SIZE_BYTES // 256)
    file = File("model.onnx", hashlib.sha256(data).hexdigest(), len(data))
    chunks = [
        (number, data[number * CHUNK_SIZE_BYTES : (number + 1) * CHUNK_SIZE_BYTES]) for number in range(3)
    ]
    Partial(tmp_path, file).write(chunks[:2])
    (tmp_path / f"{file.sha256}.part").unlink()
    Partial(tmp_path, file).write(chunks[2:])  # creates the part anew
    last = Partial(tmp_path, file)
    assert last.missing() == [0, 1]
    last.write(chunks)
    last.finish()
    assert BlobStore(tmp_path).has(file)


def test_downloads_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    left_over = tmp_path / DOWNLOADS_FOLDER / "x"
    left_over.mkdir(parents=True)
    (left_over / "target").write_bytes(b"half")

    async def start() -> None:
        files = FileClient(_offline, _offline, timeout_s=1, attempts=1, backoff=_backoff)
        ImageRepository(tmp_path, Repository().root, files)

    asyncio.run(start())
    assert not left_over.exists()


def test_every_new_folder_is_synced_into_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    real = durable.sync_folder

    def sync(path: Path) -> None:
        synced.append(path)
        real(path)

    monkeypatch.setattr(durable, "sync_folder", sync)
    durable.make_folder(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
