"""What a simulated device fetches for an update, one thing after the other, and a blob on its way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Set
from functools import lru_cache
from typing import TypeAlias

from fleet.protocol.assignment import ModelOrder
from fleet.protocol.chunks import chunk_count, ranges_of
from fleet.protocol.manifest import File, Manifest, decode_manifest, manifest_sha256
from fleet.protocol.messages import FileAnswer

Step: TypeAlias = tuple[str, int] | File
"""A path and an offset to fetch, or a blob to receive."""
Steps: TypeAlias = Generator[Step, FileAnswer | None, None]


def update(order: ModelOrder, held: Set[str]) -> Steps:
    """Ask for metadata, manifest and files.

    Args:
        order: What is to be installed.
        held: Digests of blobs that are here.
    """
    yield from _file("metadata/2.root.json")  # there is none yet
    timestamp = yield from _file("metadata/timestamp.json")
    snapshot = yield from _file(f"metadata/{_named(timestamp, 'snapshot.json')}.snapshot.json")
    yield from _file(f"metadata/{_named(snapshot, 'targets.json')}.targets.json")
    digest = order.manifest_sha256.hex()
    data = yield from _file(f"targets/{order.model}/{digest}.{order.version}.json")
    assert manifest_sha256(data) == digest
    manifest = _manifest(data)
    for file in manifest.files(manifest.variant(order.variant)):
        if file.sha256 not in held:
            yield file


def _file(path: str) -> Generator[Step, FileAnswer | None, bytes]:
    data = b""
    while True:
        answer = yield (path, len(data))
        assert answer is not None
        data += answer.data
        if answer.size_bytes is None or len(data) >= answer.size_bytes:
            return data


class Incoming:
    """A blob on its way: chunks are hashed in order, and those that come early are kept."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._hash = hashlib.sha256()
        self._next = 0
        self._early: dict[int, bytes] = {}
        self._chunks = chunk_count(file.size_bytes)

    def missing(self) -> tuple[tuple[int, int], ...]:
        """Return the ranges that did not come."""
        return tuple(
            ranges_of(number for number in range(self._next, self._chunks) if number not in self._early)
        )

    def take(self, number: int, data: bytes) -> bool:
        """Take a chunk; tell whether it was new."""
        if number < self._next or number in self._early:
            return False
        self._early[number] = data
        while (chunk := self._early.pop(self._next, None)) is not None:
            self._hash.update(chunk)
            self._next += 1
        return True

    def is_whole(self) -> bool:
        """Tell whether everything came, and is what it should be."""
        if self._next < self._chunks:
            return False
        assert self._hash.hexdigest() == self.file.sha256
        return True


@lru_cache(maxsize=8)
def _manifest(data: bytes) -> Manifest:
    return decode_manifest(data)


@lru_cache(maxsize=16)
def _named(metadata: bytes, name: str) -> int:
    """Return the version of a metadata file that another one names."""
    version: int = json.loads(metadata)["signed"]["meta"][name]["version"]
    return version
