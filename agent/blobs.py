"""Blobs on disk, whole and in part.

::

    blobs/<sha256>            a whole blob, verified when it got this name
    blobs/<sha256>.part       the same size from the first chunk on, with holes
    blobs/<sha256>.journal    numbers of the chunks that are in the part: 4 bytes each, little-endian

A chunk's number is written only after its bytes were synced, so the journal may say too little after a
crash but never too much; the digest of the whole decides in any case. A number cut off by a crash is
ignored.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from agent import durable
from fleet.protocol.chunks import CHUNK_SIZE_BYTES, chunk_count, chunk_size_bytes
from fleet.protocol.errors import DigestMismatch
from fleet.protocol.manifest import File

_NUMBER = struct.Struct("<I")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        StorageError: It cannot be read.
    """
    with durable.storage_errors(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, hashlib.sha256).hexdigest()


class Partial:
    """A blob that is being received. Used by one thread at a time.

    Args:
        folder: Where blobs are kept.
        file: The blob's digest and size.
    """

    def __init__(self, folder: Path, file: File) -> None:
        self._file = file
        self._whole = folder / file.sha256
        self._part = folder / f"{file.sha256}.part"
        self._journal = folder / f"{file.sha256}.journal"
        self._held = self._read_journal()

    def missing(self) -> list[int]:
        """Return the numbers of the chunks that are not here yet, ascending."""
        return [number for number in range(chunk_count(self._file.size_bytes)) if number not in self._held]

    @property
    def missing_bytes(self) -> int:
        """How many bytes are not here yet."""
        return sum(chunk_size_bytes(self._file.size_bytes, number) for number in self.missing())

    def wants(self, number: int) -> bool:
        """Tell whether a chunk is part of the blob and not here yet."""
        return 0 <= number < chunk_count(self._file.size_bytes) and number not in self._held

    def write(self, chunks: Iterable[tuple[int, bytes]]) -> None:
        """Put chunks in their places so that they last; those that are here already are left alone.

        Args:
            chunks: Number and bytes; each of exactly the right size.

        Raises:
            NoSpace: The disk is full; chunks written before still count.
            StorageError: The chunks cannot be written.
        """
        new = {number: data for number, data in chunks if self.wants(number)}
        if not new:
            return
        with durable.storage_errors(self._part):
            descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT, durable.PUBLIC)
            try:
                for number, data in new.items():
                    _write_at(descriptor, data, number * CHUNK_SIZE_BYTES)
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            with self._journal.open("ab") as journal:
                journal.write(b"".join(_NUMBER.pack(number) for number in new))
        self._held.update(new)

    def finish(self) -> None:
        """Verify the whole and give it its name; on a wrong digest discard it all.

        Raises:
            DigestMismatch: The bytes are not the blob; nothing of them is kept.
            StorageError: The blob cannot be read or renamed.
        """
        with durable.storage_errors(self._part):
            self._part.touch()  # an empty blob has no chunk that would have created it
        if file_sha256(self._part) != self._file.sha256:
            self.discard()
            raise DigestMismatch(f"The blob received as {self._file.sha256} has another SHA-256.")
        with durable.storage_errors(self._part), self._part.open("rb") as stream:
            os.fsync(stream.fileno())
            self._part.replace(self._whole)
            durable.sync_folder(self._whole.parent)
        durable.remove_file(self._journal)

    def discard(self) -> None:
        """Forget every chunk."""
        durable.remove_file(self._journal)  # first: a part without a journal is an empty one
        durable.remove_file(self._part)
        self._held = set()

    def _read_journal(self) -> set[int]:
        with durable.storage_errors(self._journal):
            if not self._part.exists():  # numbers from before would vouch for holes of the next part
                self._journal.unlink(missing_ok=True)
            if not self._journal.exists():
                return set()
            data = self._journal.read_bytes()
            whole = len(data) - len(data) % _NUMBER.size
            if whole < len(data):  # cut off by a crash; what is appended must not join it
                os.truncate(self._journal, whole)
        numbers = {number for (number,) in _NUMBER.iter_unpack(data[:whole])}
        return {number for number in numbers if number < chunk_count(self._file.size_bytes)}


class BlobStore:
    """The folder of blobs.

    Args:
        folder: Where they are; created if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        durable.make_own_folder(folder)

    def path(self, sha256: str) -> Path:
        """Return where a whole blob is, or would be."""
        return self.folder / sha256

    def has(self, file: File) -> bool:
        """Tell whether a blob is here, whole; its bytes are hashed again, and removed if they are wrong.

        Raises:
            StorageError: It cannot be read or removed.
        """
        path = self.path(file.sha256)
        with durable.storage_errors(path):
            is_here = path.is_file() and path.stat().st_size == file.size_bytes
        if is_here and file_sha256(path) == file.sha256:
            return True
        durable.remove_tree(path)
        return False

    def partial(self, file: File) -> Partial:
        """Return what is here of a blob that is not whole."""
        return Partial(self.folder, file)

    def keep(self, digests: set[str]) -> None:
        """Remove every blob, whole or in part, but these.

        Raises:
            StorageError: One cannot be removed.
        """
        with durable.storage_errors(self.folder):
            for path in self.folder.iterdir():
                if path.name.partition(".")[0] not in digests:
                    path.unlink(missing_ok=True)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
