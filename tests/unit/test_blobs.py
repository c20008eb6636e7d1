"""The blob folder: what is put in comes out, and damage is noticed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from fleet.protocol.chunks import CHUNK_SIZE_BYTES, chunk_count
from fleet.protocol.errors import InvalidName, NoSpace, NotFound, StorageCorrupt, StorageError
from hub.store.blobs import BlobFolder

UNKNOWN = "0" * 64


@pytest.fixture
def blobs(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "blobs")


def _file(tmp_path: Path, sha256: str) -> Path:
    return tmp_path / "blobs" / sha256[:2] / sha256


def _damage(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "size_bytes", [0, 1, CHUNK_SIZE_BYTES - 1, CHUNK_SIZE_BYTES, 3 * CHUNK_SIZE_BYTES + 7]
)
def test_a_blob_comes_back_whole_and_in_chunks(blobs: BlobFolder, size_bytes: int) -> None:
    data = bytes(i * 7 % 251 for i in range(size_bytes))
    sha256 = blobs.put(data)
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert blobs.contains(sha256)
    assert blobs.read(sha256) == data
    assert blobs.size_bytes(sha256) == size_bytes
    assert b"".join(blobs.read_chunk(sha256, i) for i in range(chunk_count(size_bytes))) == data
    for index in (-1, chunk_count(size_bytes)):
        with pytest.raises(NotFound):
            blobs.read_chunk(sha256, index)


def test_to_put_the_same_again_changes_nothing(blobs: BlobFolder, tmp_path: Path) -> None:
    sha256 = blobs.put(b"data")
    before = _file(tmp_path, sha256).stat()
    assert blobs.put(b"data") == sha256
    assert _file(tmp_path, sha256).stat().st_ino == before.st_ino
    assert [path.name for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == [sha256]


def test_an_unknown_blob_is_not_found(blobs: BlobFolder) -> None:
    assert not blobs.contains(UNKNOWN)
    for read in (blobs.read, blobs.size_bytes, lambda sha256: blobs.read_chunk(sha256, 0)):
        with pytest.raises(NotFound):
            read(UNKNOWN)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_digests_name_blobs(blobs: BlobFolder, name: str) -> None:
    assert not blobs.contains(name)
    with pytest.raises(InvalidName):
        blobs.read(name)


@pytest.mark.parametrize("damaged", [b"", b"dat", b"datA", b"data and more"])
def test_damage_is_noticed_and_repaired_by_putting_again(
    blobs: BlobFolder, tmp_path: Path, damaged: bytes
) -> None:
    sha256 = blobs.put(b"data")
    assert blobs.read_chunk(sha256, 0) == b"data"
    _damage(_file(tmp_path, sha256), damaged)
    with pytest.raises(StorageCorrupt):
        blobs.read(sha256)
    with pytest.raises(StorageCorrupt):
        blobs.read_chunk(sha256, 0)
    assert blobs.put(b"data") == sha256
    assert blobs.read(sha256) == b"data"
    assert blobs.read_chunk(sha256, 0) == b"data"


def test_a_full_disk_stores_nothing(
    blobs: BlobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(NoSpace):
            BlobFolder(tmp_path).put(b"data")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_bytes(b"a file where the folder belongs")
    with pytest.raises(StorageError):
        BlobFolder(tmp_path / "blobs").put(b"data")
