r"""A bundle as one stream of bytes: how it travels to a hub.

It is an uncompressed tar archive in the ustar form, which any ``tar`` lists::

    manifest.json           header, contents, zeros up to a multiple of 512 bytes
    blobs/<SHA-256>         likewise; each blob once, in the order of their digests
    (end)                   1,024 zeros

    header, 512 bytes:  name (100)  mode (8)  uid (8)  gid (8)  size (12, octal)  time (12)  checksum (8)
                        kind (1)  link (100)  "ustar\0" "00"  user (32)  group (32)  device (8, 8)
                        prefix (155)  zeros (12)

Mode is 0644 and kind a regular file; owner, time and device are 0 and names empty. So a bundle determines
every byte of its archive.

Archives come from people, so the reader believes nothing. The one thing that it takes from a header is the
size of the manifest. The manifest says which blobs follow and how large they are, hence every other header
and the size of the whole: what is there must be just that. No path is ever taken from an archive, and nothing
is allocated before its size is known to be within the file. Source: IEEE Std 1003.1-2017, *pax*, "ustar
Interchange Format".
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from converters.bundles.bundle import Bundle
from converters.bundles.folder import BLOBS_FOLDER, MANIFEST_FILE
from fleet.protocol.errors import DigestMismatch, InvalidInput, InvalidManifest, NotFound, StorageError
from fleet.protocol.manifest import MAX_MANIFEST_SIZE_BYTES, Manifest, decode_manifest, encode_manifest

_PART_SIZE_BYTES = 256 * 1024
_BLOCK_SIZE_BYTES = 512
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_SIZE_FIELD = slice(124, 136)
_SIZE = re.compile(rb"[0-7]{11}\0")
_END = bytes(2 * _BLOCK_SIZE_BYTES)


def write_archive(bundle: Bundle) -> Iterator[bytes]:
    """Yield the archive of a bundle, part by part.

    Args:
        bundle: What to write.
    """
    blobs = ((f"{BLOBS_FOLDER}/{sha256}", bundle.blobs[sha256]) for sha256 in sorted(bundle.blobs))
    for name, data in ((MANIFEST_FILE, bundle.manifest_bytes), *blobs):
        yield _header(name, len(data))
        yield from (data[start : start + _PART_SIZE_BYTES] for start in range(0, len(data), _PART_SIZE_BYTES))
        yield _padding(len(data))
    yield _END


def archive_size_bytes(bundle: Bundle) -> int:
    """Return the size of a bundle's archive."""
    return _archive_size_bytes(
        len(bundle.manifest_bytes), {sha256: len(data) for sha256, data in bundle.blobs.items()}
    )


def read_archive(path: Path) -> Bundle:
    """Read a bundle from its archive, every byte of it checked.

    Args:
        path: The file.

    Raises:
        NotFound: There is no such file.
        InvalidInput: It is no such archive, or not the one that its manifest describes.
        InvalidManifest: The manifest is not one, or not as `encode_manifest` writes it.
        DigestMismatch: A blob is not what the manifest promises.
        StorageError: The file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return _read(stream, os.fstat(stream.fileno()).st_size)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error


def _read(stream: BinaryIO, size_bytes: int) -> Bundle:
    data = _manifest_bytes(stream, size_bytes)
    manifest = decode_manifest(data)
    if encode_manifest(manifest) != data:
        raise InvalidManifest(
            "The manifest holds something that this release does not know, or is written in another way.",
            remedy="Convert the model again with this release.",
        )
    sizes = _blob_sizes(manifest)
    if (described := _archive_size_bytes(len(data), sizes)) != size_bytes:
        raise InvalidInput(
            f"The archive has {size_bytes} bytes; the bundle that its manifest describes has {described}."
        )
    blobs = {sha256: _blob(stream, sha256, sizes[sha256]) for sha256 in sorted(sizes)}
    if stream.read(len(_END)) != _END:
        raise _not_canonical("its end")
    return Bundle(manifest, data, blobs)


def _manifest_bytes(stream: BinaryIO, size_bytes: int) -> bytes:
    header = stream.read(_BLOCK_SIZE_BYTES)
    if not _SIZE.fullmatch(header[_SIZE_FIELD]):
        raise InvalidInput("This is no archive of a bundle.", remedy="`muster model register` makes one.")
    stated = int(header[_SIZE_FIELD][:-1], 8)
    if stated > MAX_MANIFEST_SIZE_BYTES:
        raise InvalidManifest(f"The manifest has {stated} bytes; {MAX_MANIFEST_SIZE_BYTES} are allowed.")
    if header != _header(MANIFEST_FILE, stated):
        raise _not_canonical("the header of its manifest")
    if stated > size_bytes - _BLOCK_SIZE_BYTES:
        raise InvalidInput(f"The archive has {size_bytes} bytes; {stated} are stated for its manifest alone.")
    return _contents(stream, stated, "its manifest")


def _blob(stream: BinaryIO, sha256: str, size_bytes: int) -> bytes:
    if stream.read(_BLOCK_SIZE_BYTES) != _header(f"{BLOBS_FOLDER}/{sha256}", size_bytes):
        raise _not_canonical(f"the header of blob {sha256}")
    data = _contents(stream, size_bytes, f"blob {sha256}")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DigestMismatch(f"Blob {sha256} of the archive has other contents than its name promises.")
    return data


def _contents(stream: BinaryIO, size_bytes: int, what: str) -> bytes:
    data = stream.read(size_bytes)
    padding = _padding(size_bytes)
    if len(data) != size_bytes or stream.read(len(padding)) != padding:
        raise _not_canonical(what)
    return data


def _blob_sizes(manifest: Manifest) -> dict[str, int]:
    """Return the size of every blob that the manifest names."""
    sizes: dict[str, int] = {}
    for variant in manifest.variants:
        for file in manifest.files(variant):
            if sizes.setdefault(file.sha256, file.size_bytes) != file.size_bytes:
                raise InvalidManifest(f"The manifest gives blob {file.sha256} two sizes.")
    return sizes


def _archive_size_bytes(manifest_size_bytes: int, blob_sizes: dict[str, int]) -> int:
    members = (manifest_size_bytes, *blob_sizes.values())
    return len(_END) + sum(_BLOCK_SIZE_BYTES + size + len(_padding(size)) for size in members)


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % _BLOCK_SIZE_BYTES)


def _header(name: str, size_bytes: int) -> bytes:
    """Return a header; its checksum is the sum of all its bytes, with spaces in the checksum's place."""
    zero, empty = b"0000000\0", b""
    before = (name.encode(), b"0000644\0", zero, zero, b"%011o\0" % size_bytes, b"%011o\0" % 0)
    after = (b"0", empty, b"ustar\0", b"00", empty, empty, zero, zero, empty)
    checksum = sum(_HEADER.pack(*before, b" " * 8, *after))
    return _HEADER.pack(*before, b"%06o\0 " % checksum, *after)


def _not_canonical(where: str) -> InvalidInput:
    return InvalidInput(
        f"The archive is not as this release writes one: {where} differs.",
        remedy="Let `muster model register` make it.",
    )
