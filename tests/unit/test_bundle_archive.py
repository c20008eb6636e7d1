"""The archive of a bundle: what it looks like, that any tar reads it, and everything that is refused."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from converters.bundles.archive import archive_size_bytes, read_archive, write_archive
from converters.bundles.bundle import Bundle
from fleet.protocol.errors import DigestMismatch, InvalidInput, InvalidManifest, NotFound, StorageError
from fleet.protocol.manifest import MAX_MANIFEST_SIZE_BYTES, File
from tests.support.registrable import archive, small_bundle, with_manifest, write

BUNDLE = small_bundle()
ARCHIVE = archive(BUNDLE)
BLOCK = 512


def _members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return tar.getmembers()


def _packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return what Python's tar makes of these members."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def test_any_tar_finds_the_manifest_and_then_the_blobs_in_order() -> None:
    with tarfile.open(fileobj=io.BytesIO(ARCHIVE), mode="r:") as tar:
        contents = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        members = tar.getmembers()
    assert list(contents) == ["manifest.json", *(f"blobs/{sha256}" for sha256 in sorted(BUNDLE.blobs))]
    assert contents.pop("manifest.json") == BUNDLE.manifest_bytes
    assert contents == {f"blobs/{sha256}": data for sha256, data in BUNDLE.blobs.items()}
    for member in members:
        assert member.isreg()
        assert (member.mode, member.mtime, member.uid, member.uname) == (0o644, 0, 0, "")


def test_a_bundle_determines_every_byte() -> None:
    shuffled = Bundle(BUNDLE.manifest, BUNDLE.manifest_bytes, dict(reversed(BUNDLE.blobs.items())))
    assert archive(shuffled) == ARCHIVE
    assert len(ARCHIVE) == archive_size_bytes(BUNDLE)


def test_no_part_is_larger_than_what_a_connection_takes_at_once() -> None:
    large = small_bundle(padding_bytes=1_000_000)
    assert max(map(len, write_archive(large))) <= 256 * 1024


def test_what_was_written_is_read(tmp_path: Path) -> None:
    again = read_archive(write(tmp_path / "bundle.tar", ARCHIVE))
    assert again == BUNDLE


def _with_end(data: bytes) -> bytes:
    return data + bytes(2 * BLOCK)


def _without_last_blob() -> bytes:
    last = _members(ARCHIVE)[-1]
    return _with_end(ARCHIVE[: last.offset])


def _with_extra_blob() -> bytes:
    extra = Bundle(BUNDLE.manifest, BUNDLE.manifest_bytes, {**BUNDLE.blobs, "f" * 64: b"more"})
    return archive(extra)


def _with_blob_twice() -> bytes:
    last = _members(ARCHIVE)[-1]
    return _with_end(ARCHIVE[: -2 * BLOCK] + ARCHIVE[last.offset : -2 * BLOCK])


def _with_blobs_swapped() -> bytes:
    first, second = (member.offset for member in _members(ARCHIVE)[-2:])
    return _with_end(ARCHIVE[:first] + ARCHIVE[second : -2 * BLOCK] + ARCHIVE[first:second])


def _with_blob_first() -> bytes:
    manifest, blob, *_ = _members(ARCHIVE)
    after = _members(ARCHIVE)[2].offset
    return ARCHIVE[blob.offset : after] + ARCHIVE[manifest.offset : blob.offset] + ARCHIVE[after:]


def _as_link(kind: bytes) -> bytes:
    manifest = tarfile.TarInfo("manifest.json")
    link = tarfile.TarInfo(f"blobs/{min(BUNDLE.blobs)}")
    link.type, link.linkname = kind, "/etc/passwd"
    return _packed((manifest, BUNDLE.manifest_bytes), (link, b""))


def _renamed(name: str) -> bytes:
    """Return the archive with another name, of the right checksum, in place of the first blob's."""
    blob, data = tarfile.TarInfo(name), BUNDLE.blobs[min(BUNDLE.blobs)]
    manifest = tarfile.TarInfo("manifest.json")
    packed = _packed((manifest, BUNDLE.manifest_bytes), (blob, data))
    start, after = _members(ARCHIVE)[1].offset, _members(ARCHIVE)[2].offset
    return ARCHIVE[:start] + packed[_members(packed)[1].offset :][: after - start] + ARCHIVE[after:]


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(lambda: b"", id="nothing"),
        pytest.param(lambda: bytes(4096), id="zeros"),
        pytest.param(lambda: b"PK\x03\x04" + bytes(4096), id="zip"),
        pytest.param(lambda: ARCHIVE[:100], id="part of a header"),
        pytest.param(lambda: ARCHIVE[:BLOCK], id="a header alone"),
        pytest.param(lambda: ARCHIVE[:-1], id="one byte less"),
        pytest.param(lambda: ARCHIVE + bytes(1), id="one byte more"),
        pytest.param(lambda: ARCHIVE[: -2 * BLOCK], id="no end"),
        pytest.param(lambda: ARCHIVE[:-1] + b"\1", id="an end that is not zero"),
        pytest.param(_without_last_blob, id="a blob is missing"),
        pytest.param(_with_extra_blob, id="a blob too many"),
        pytest.param(_with_blob_twice, id="a blob twice"),
        pytest.param(_with_blobs_swapped, id="blobs in another order"),
        pytest.param(_with_blob_first, id="the manifest not first"),
        pytest.param(lambda: _as_link(tarfile.SYMTYPE), id="a symbolic link"),
        pytest.param(lambda: _as_link(tarfile.LNKTYPE), id="a hard link"),
        pytest.param(lambda: _as_link(tarfile.CHRTYPE), id="a device"),
        pytest.param(lambda: _renamed("../../etc/cron.d/evil"), id="a path that leads out"),
        pytest.param(lambda: _renamed("/etc/passwd"), id="an absolute path"),
        pytest.param(lambda: _renamed("blobs/" + "F" * 64), id="another digest"),
    ],
)
def test_what_is_not_the_archive_of_its_manifest_is_refused(
    tmp_path: Path, damaged: Callable[[], bytes]
) -> None:
    with pytest.raises(InvalidInput):
        read_archive(write(tmp_path / "bundle.tar", damaged()))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.tar"]


def test_a_blob_with_other_contents_is_refused(tmp_path: Path) -> None:
    data = bytearray(ARCHIVE)
    data[_members(ARCHIVE)[2].offset_data] ^= 1
    with pytest.raises(DigestMismatch):
        read_archive(write(tmp_path / "bundle.tar", bytes(data)))


def test_hidden_bytes_between_members_are_refused(tmp_path: Path) -> None:
    data = bytearray(ARCHIVE)
    first = _members(ARCHIVE)[0]
    assert first.size % BLOCK
    data[first.offset_data + first.size] = 1
    with pytest.raises(InvalidInput):
        read_archive(write(tmp_path / "bundle.tar", bytes(data)))


def _with_manifest_bytes(data: bytes) -> bytes:
    return archive(Bundle(BUNDLE.manifest, data, BUNDLE.blobs))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"nonsense",
        b"[" * 100_000,
        BUNDLE.manifest_bytes.replace(b'"format":2', b'"format":3'),
        BUNDLE.manifest_bytes.replace(b'"format":2', b'"format": 2'),
        BUNDLE.manifest_bytes.replace(b'"format":2', b'"format":2,"hidden":1'),
        BUNDLE.manifest_bytes + b"\n",
        b" " * (MAX_MANIFEST_SIZE_BYTES + 1),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_a_manifest_that_is_not_as_we_write_it_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidManifest):
        read_archive(write(tmp_path / "bundle.tar", _with_manifest_bytes(data)))


def test_a_size_that_is_not_there_is_never_allocated(tmp_path: Path) -> None:
    (file,) = BUNDLE.manifest.golden_inputs
    huge = File(file.name, file.sha256, 2**31)
    data = archive(with_manifest(BUNDLE, golden_inputs=(huge,)))
    with pytest.raises(InvalidInput, match="describes has 2147"):
        read_archive(write(tmp_path / "bundle.tar", data))


def test_a_blob_with_two_sizes_is_refused(tmp_path: Path) -> None:
    first, second = BUNDLE.manifest.variants
    outputs = msgspec.structs.replace(first.golden_outputs, size_bytes=first.golden_outputs.size_bytes + 1)
    variants = (msgspec.structs.replace(first, golden_outputs=outputs), second)
    data = archive(with_manifest(BUNDLE, variants=variants))
    with pytest.raises(InvalidManifest, match="two sizes"):
        read_archive(write(tmp_path / "bundle.tar", data))


def test_a_file_that_is_missing_or_a_folder_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_archive(tmp_path / "nothing.tar")
    with pytest.raises(StorageError):
        read_archive(tmp_path)
