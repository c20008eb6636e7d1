"""Archives under any damage: reading gives exactly the bundle that was written, or a typed error."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from converters.bundles.archive import read_archive
from converters.bundles.bundle import Bundle
from fleet.protocol.errors import DigestMismatch, InvalidInput
from tests.support.registrable import archive, small_bundle, write

BUNDLE = small_bundle()
ARCHIVE = archive(BUNDLE)


def _read(data: bytes) -> Bundle | None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return read_archive(write(Path(folder) / "bundle.tar", data))
        except (InvalidInput, DigestMismatch):
            return None


@given(st.binary(max_size=2000))
def test_bytes_are_refused(data: bytes) -> None:
    assert _read(data) is None


@settings(max_examples=300)
@given(st.integers(0, len(ARCHIVE) - 1), st.integers(1, 255))
def test_no_byte_of_an_archive_can_be_another(position: int, change: int) -> None:
    data = bytearray(ARCHIVE)
    data[position] ^= change
    again = _read(bytes(data))
    # Within the manifest a change can make another manifest of the same blobs, such as other weights of a
    # feature; that one is read as it is written. Everywhere else it is refused.
    assert again is None or (archive(again) == bytes(data) and again.blobs == BUNDLE.blobs)
    if not 512 <= position < 512 + len(BUNDLE.manifest_bytes):
        assert again is None


@given(st.integers(0, len(ARCHIVE) - 1))
def test_a_part_of_an_archive_is_refused(size_bytes: int) -> None:
    assert _read(ARCHIVE[:size_bytes]) is None


@given(st.binary(min_size=1, max_size=3000))
def test_an_archive_with_more_behind_it_is_refused(more: bytes) -> None:
    assert _read(ARCHIVE + more) is None
