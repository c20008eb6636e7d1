"""A bundle as a folder: how it passes from the process that builds it to the hub that keeps it.

::

    folder/manifest.json
    folder/blobs/<SHA-256 in hexadecimal>

The folder appears whole or not at all. It is handed over, not kept: whoever keeps its files makes them
durable.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from converters.bundles.bundle import Bundle
from fleet.protocol.errors import Conflict, DigestMismatch, NotFound, StorageError
from fleet.protocol.manifest import MAX_MANIFEST_SIZE_BYTES, File, decode_manifest, manifest_sha256

MANIFEST_FILE = "manifest.json"
BLOBS_FOLDER = "blobs"


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Write a bundle.

    Args:
        folder: Does not exist yet, or is empty.
        bundle: What to write.

    Raises:
        Conflict: The folder has contents.
        StorageError: It could not be written; nothing is left behind.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise Conflict(f"The output folder {folder} is not empty.")
    partial = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed
        (partial / BLOBS_FOLDER).mkdir(parents=True)
        for sha256, data in bundle.blobs.items():
            (partial / BLOBS_FOLDER / sha256).write_bytes(data)
        (partial / MANIFEST_FILE).write_bytes(bundle.manifest_bytes)
        partial.replace(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise StorageError(f"The bundle could not be written to {folder}: {error.strerror}.") from error


def read_bundle(folder: Path, sha256: str | None = None) -> Bundle:
    """Read a bundle, every byte of it checked.

    Args:
        folder: Where `write_bundle` wrote it.
        sha256: The bundle's digest, from whoever wrote it; None where none is known.

    Raises:
        NotFound: A file is missing.
        DigestMismatch: A file is not what was promised.
        InvalidManifest: The manifest is not one.
    """
    data = _read(folder / MANIFEST_FILE, MAX_MANIFEST_SIZE_BYTES)
    if sha256 is not None and manifest_sha256(data) != sha256:
        raise DigestMismatch(f"The manifest in {folder} does not have the SHA-256 {sha256}.")
    manifest = decode_manifest(data)
    files = [file for variant in manifest.variants for file in manifest.files(variant)]
    return Bundle(manifest, data, {file.sha256: _blob(folder, file) for file in files})


def _blob(folder: Path, file: File) -> bytes:
    data = _read(folder / BLOBS_FOLDER / file.sha256, file.size_bytes)
    if len(data) != file.size_bytes or hashlib.sha256(data).hexdigest() != file.sha256:
        raise DigestMismatch(f"Blob {file.sha256} in {folder} has other contents than its name promises.")
    return data


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        with path.open("rb") as stream:
            if (size_bytes := os.fstat(stream.fileno()).st_size) > limit_bytes:
                raise DigestMismatch(f"{path} has {size_bytes} bytes; {limit_bytes} were promised at most.")
            return stream.read()
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
