"""Any counts come out of their bytes again; any bytes are counts or refused."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.drift.encoding import decode_profile, encode_profile
from fleet.drift.profile import FeatureCounts, FeatureReference, check_counts, count
from fleet.protocol.errors import InvalidMessage
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

MANY = settings(max_examples=examples(300), derandomize=True, deadline=None)
EDGES = st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=8, unique=True).map(lambda e: tuple(sorted(e)))
NUMERIC = st.builds(
    lambda edges, values: count(FeatureReference("", (0,) * (len(edges) + 1), edges), np.array(values)),
    EDGES,
    st.lists(st.floats(), max_size=30),
)
CATEGORICAL = st.builds(
    FeatureCounts, cells=st.lists(st.integers(0, 2**33), max_size=20), missing=st.integers(0, 2**33)
)
PROFILES = st.dictionaries(st.text(max_size=8), NUMERIC | CATEGORICAL, max_size=5)


@given(PROFILES)
@MANY
def test_counts_come_out_of_their_bytes_again(profile: dict[str, FeatureCounts]) -> None:
    assert decode_profile(encode_profile(profile)) == profile


def _decoded_or_refused(data: bytes) -> None:
    try:
        profile = decode_profile(data)
    except InvalidMessage:
        return
    for counts in profile.values():
        assert min([counts.missing, *counts.cells, *counts.offsets]) >= 0
        check_counts(counts)
    assert decode_profile(encode_profile(profile)) == profile


@given(st.binary(max_size=80), st.booleans())
@MANY
def test_any_bytes(data: bytes, compressed: bool) -> None:
    _decoded_or_refused(b"\x01\x01" + zlib.compress(data) if compressed else b"\x01\x00" + data)


@given(PROFILES, st.integers(0, 2**16), st.integers(0, 255), st.integers(0, 40))
@MANY
def test_bytes_of_counts_with_one_changed_or_some_cut_off(
    profile: dict[str, FeatureCounts], at: int, byte: int, cut: int
) -> None:
    data = bytearray(encode_profile(profile))
    data[at % len(data)] = byte
    _decoded_or_refused(bytes(data))
    _decoded_or_refused(bytes(data[: len(data) - cut]))
