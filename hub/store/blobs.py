"""Blobs: files named by the SHA-256 of their bytes.

::

    <folder>/ab/abcdef…      the first two digits spread the files over 256 folders

A blob is written once, atomically and durably, and never changed. Whoever reads it whole gets bytes that were
hashed again. Chunks are read from a file that was hashed once since this process started, and again whenever
its size, time of change or inode differ. Damage that leaves all three alone, such as a failing disk, is not
seen here but on the device: it checks the whole blob by its digest before it uses it, and reports a
mismatch.
"""

from __future__ import annotations

import hashlib
import os
import threading
from io import BufferedReader
from pathlib import Path

from fleet.protocol.chunks import CHUNK_SIZE_BYTES, MAX_BLOB_SIZE_BYTES, chunk_size_bytes
from fleet.protocol.errors import InvalidInput, InvalidName, NotFound, StorageCorrupt
from fleet.protocol.names import is_sha256
from hub.durable import create_durably, storage_error, write_durably

_Fingerprint = tuple[int, int, int]


class BlobFolder:
    """The folder of blobs. Safe to use from several threads.

    Args:
        folder: Made when the first blob is put in.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._verified: dict[str, _Fingerprint] = {}
        self._lock = threading.Lock()

    def put(self, data: bytes) -> str:
        """Store bytes durably; to store the same again repairs a damaged copy and changes nothing else.

        Args:
            data: The blob.

        Returns:
            Its SHA-256 in hexadecimal.

        Raises:
            InvalidInput: It is larger than a blob may be.
            NoSpace: The disk is full; nothing was stored.
            StorageError: It cannot be written; nothing was stored.
        """
        if len(data) > MAX_BLOB_SIZE_BYTES:
            raise InvalidInput(
                f"A blob of {len(data)} bytes is too large; {MAX_BLOB_SIZE_BYTES} are allowed."
            )
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        if not create_durably(path, data, mode=0o444) and not self._is_intact(sha256):
            write_durably(path, data, mode=0o444)
        return sha256

    def contains(self, sha256: str) -> bool:
        """Tell whether there is such a blob."""
        return is_sha256(sha256) and self.path(sha256).is_file()

    def read(self, sha256: str) -> bytes:
        """Return a blob's bytes, hashed again.

        Raises:
            NotFound: There is no such blob.
            StorageCorrupt: The stored bytes are not the ones that were stored.
        """
        with self._open(sha256) as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _corrupt(sha256)
        return data

    def size_bytes(self, sha256: str) -> int:
        """Return a blob's size.

        Raises:
            NotFound: There is no such blob.
        """
        with self._open(sha256) as file:
            return os.fstat(file.fileno()).st_size

    def read_chunk(self, sha256: str, index: int) -> bytes:
        """Return one chunk of a blob, see `fleet.protocol.chunks`.

        The first call for a blob reads all of it, to verify it.

        Raises:
            NotFound: There is no such blob, or it has no such chunk.
            StorageCorrupt: The stored bytes are not the ones that were stored.
        """
        with self._open(sha256) as file:
            size_bytes = self._verified_size(sha256, file)
            wanted_bytes = chunk_size_bytes(size_bytes, index)
            if wanted_bytes == 0:
                raise NotFound(f"Blob {sha256} has no chunk {index}.")
            data = os.pread(file.fileno(), wanted_bytes, index * CHUNK_SIZE_BYTES)
        if len(data) != wanted_bytes:
            raise _corrupt(sha256)
        return data

    def _verified_size(self, sha256: str, file: BufferedReader) -> int:
        status = os.fstat(file.fileno())
        fingerprint = (status.st_size, status.st_mtime_ns, status.st_ino)
        with self._lock:
            if self._verified.get(sha256) == fingerprint:
                return status.st_size
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise _corrupt(sha256)
        with self._lock:
            self._verified[sha256] = fingerprint
        return status.st_size

    def _is_intact(self, sha256: str) -> bool:
        with self._open(sha256) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256

    def _open(self, sha256: str) -> BufferedReader:
        path = self.path(sha256)
        try:
            return path.open("rb")
        except FileNotFoundError as error:
            raise NotFound(f"There is no blob {sha256}.") from error
        except OSError as error:
            raise storage_error(path, error) from error

    def path(self, sha256: str) -> Path:
        """Return where a blob is, or would be; whoever reads it there hashes it again.

        Raises:
            InvalidName: The digest is not one.
        """
        if not is_sha256(sha256):
            raise InvalidName(f"{sha256!r:.80} is not a SHA-256 digest.")
        return self._folder / sha256[:2] / sha256


def _corrupt(sha256: str) -> StorageCorrupt:
    return StorageCorrupt(
        f"Blob {sha256} is damaged on disk.", remedy="Restore it from a backup, or register the model again."
    )
