"""Receiving a blob in any order, with repeats, losses and power cuts."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.blobs import BlobStore, Partial
from fleet.protocol.chunks import CHUNK_SIZE_BYTES, MAX_RANGES, chunk_count, indices_of, ranges_of
from fleet.protocol.errors import DigestMismatch
from fleet.protocol.manifest import File

SIZES = st.sampled_from(
    [0, 1, CHUNK_SIZE_BYTES - 1, CHUNK_SIZE_BYTES, CHUNK_SIZE_BYTES + 1, 5 * CHUNK_SIZE_BYTES + 77]
)


def blob(size_bytes: int) -> tuple[File, bytes]:
    data = np.random.default_rng(size_bytes).bytes(size_bytes)
    return File("model.onnx", hashlib.sha256(data).hexdigest(), size_bytes), data


def part_of(data: bytes, number: int) -> bytes:
    return data[number * CHUNK_SIZE_BYTES : (number + 1) * CHUNK_SIZE_BYTES]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    size_bytes=SIZES,
    order=st.lists(st.integers(0, 7), max_size=20),
    torn_bytes=st.integers(0, 3),
    data=st.data(),
)
def test_what_was_written_is_never_asked_for_again(
    size_bytes: int, order: list[int], torn_bytes: int, data: st.DataObject
) -> None:
    file, contents = blob(size_bytes)
    with tempfile.TemporaryDirectory() as folder:
        partial = Partial(Path(folder), file)
        written: set[int] = set()
        for number in order:
            partial.write([(number, part_of(contents, number))])
            written |= {number} & set(range(chunk_count(size_bytes)))
            if data.draw(st.booleans()):  # a power cut, which may leave half a number in the journal
                journal = Path(folder) / f"{file.sha256}.journal"
                if journal.exists():
                    journal.write_bytes(journal.read_bytes() + b"\0" * torn_bytes)
                partial = Partial(Path(folder), file)
            assert set(partial.missing()) == set(range(chunk_count(size_bytes))) - written
        partial.write([(number, part_of(contents, number)) for number in partial.missing()])
        partial.finish()
        store = BlobStore(Path(folder))
        assert store.has(file)
        assert store.path(file.sha256).read_bytes() == contents
        assert {path.name for path in Path(folder).iterdir()} == {file.sha256}


@given(size_bytes=SIZES.filter(bool), number=st.integers(0, 5))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_wrong_bytes_leave_nothing(size_bytes: int, number: int) -> None:
    file, contents = blob(size_bytes)
    spoiled = bytearray(contents)
    spoiled[min(number * CHUNK_SIZE_BYTES, size_bytes - 1)] ^= 1
    with tempfile.TemporaryDirectory() as folder:
        partial = Partial(Path(folder), file)
        partial.write((i, part_of(bytes(spoiled), i)) for i in range(chunk_count(size_bytes)))
        with pytest.raises(DigestMismatch):
            partial.finish()
        assert list(Path(folder).iterdir()) == []
        assert len(partial.missing()) == chunk_count(size_bytes)


@given(missing=st.sets(st.integers(0, 300)))
@settings(derandomize=True)
def test_ranges_name_exactly_the_first_missing_chunks(missing: set[int]) -> None:
    ranges = ranges_of(sorted(missing))[:MAX_RANGES]
    named = list(indices_of(ranges, 301))
    assert named == sorted(missing)[: len(named)]
    assert len(ranges) <= MAX_RANGES
    assert named or not missing
