"""Many profiles at once: read, added and written exactly as one by one."""

from __future__ import annotations

import random
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.drift.batch import decode_profiles
from fleet.drift.batch_encoding import encode_profiles
from fleet.drift.cells import MAX_OFFSET
from fleet.drift.encoding import decode_profile, encode_profile
from fleet.drift.matrix import CountsMatrix, Groups, Layout
from fleet.drift.profile import MAX_COUNT, FeatureCounts, Profile, merge_profiles
from fleet.protocol.errors import InvalidMessage
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

LAYOUT = Layout((("output.class", 3), ("input.mean", 6), ("Größe", 4)))
NUMBERS = st.one_of(st.integers(0, 3), st.integers(100, 300), st.integers(0, 2**22))
EXTREMES = st.lists(st.floats(allow_nan=False), min_size=2, max_size=2).map(sorted)


@st.composite
def counts(draw: st.DrawFn, cells: int) -> FeatureCounts:
    """Draw counts that can be."""
    numbers = draw(st.lists(NUMBERS, min_size=cells, max_size=cells))
    most = [MAX_OFFSET, *[255] * (cells - 2), MAX_OFFSET]
    offsets = [draw(st.integers(0, number * m)) for number, m in zip(numbers, most, strict=True)]
    low, high = draw(st.one_of(EXTREMES, st.just([None, None])))
    return FeatureCounts(numbers, draw(NUMBERS), low, high, draw(st.sampled_from([offsets, []])))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Draw a window's counts: some of the features, in any order."""
    chosen = draw(st.permutations(LAYOUT.features))[: draw(st.integers(0, 3))]
    return {name: draw(counts(cells)) for name, cells in chosen}


@given(windows=st.lists(profiles(), max_size=8), level=st.sampled_from([0, 6]))
def test_many_are_read_and_written_as_one_by_one(windows: list[Profile], level: int) -> None:
    decoded = decode_profiles([encode_profile(window, level) for window in windows], LAYOUT)
    assert not decoded.refused
    assert [decoded.matrix.profile(row) for row in range(len(windows))] == windows
    assert [decode_profile(data) for data in encode_profiles(decoded.matrix, level)] == windows


@given(windows=st.lists(profiles(), min_size=1, max_size=8), data=st.data())
def test_rows_are_added_as_windows_are(windows: list[Profile], data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.integers(0, 2), min_size=len(windows), max_size=len(windows)))
    dense = {group: number for number, group in enumerate(sorted(set(groups)))}
    matrix = CountsMatrix.empty(LAYOUT, len(windows))
    for row, window in enumerate(windows):
        matrix.put(row, window)
    summed = matrix.summed(Groups([dense[group] for group in groups]))
    for group, number in dense.items():
        members = [window for window, of in zip(windows, groups, strict=True) if of == group]
        assert summed.profile(number) == reduce(merge_profiles, members)


@settings(max_examples=examples(150))
@given(windows=st.lists(profiles(), min_size=1, max_size=5), seed=st.integers(0, 2**32))
def test_what_is_damaged_is_refused_exactly_where_one_by_one_is(windows: list[Profile], seed: int) -> None:
    rng = random.Random(seed)
    sent = [_damaged(encode_profile(window, rng.choice([0, 6])), rng) for window in windows]
    decoded = decode_profiles(sent, LAYOUT)
    for row, data in enumerate(sent):
        try:
            alone = decode_profile(data)
        except InvalidMessage:
            alone = None
        if alone is None or any(LAYOUT.places.get(name) is None for name in alone):
            assert row in decoded.refused
            assert not decoded.matrix.profile(row)
        elif row not in decoded.refused:
            assert decoded.matrix.profile(row) == alone
        else:
            assert any(dict(LAYOUT.features)[name] != len(counts.cells) for name, counts in alone.items())


@pytest.mark.parametrize(
    "wrong",
    [
        {"input.mean": FeatureCounts([1] * 5)},
        {"unknown": FeatureCounts([1])},
        {"input.mean": FeatureCounts([1] * 6, offsets=[0, 0, 256, 0, 0, 0])},
        {"input.mean": FeatureCounts([2**34] * 6)},
        {"input.mean": FeatureCounts([1] * 6, minimum=2.0, maximum=1.0)},
        {"input.mean": FeatureCounts([1] * 6, minimum=float("nan"), maximum=1.0)},
    ],
)
def test_what_cannot_be_counts_of_the_version_is_refused_and_the_rest_is_read(wrong: Profile) -> None:
    right: Profile = {"input.mean": FeatureCounts([1] * 6, minimum=0.0, maximum=1.0)}
    decoded = decode_profiles([encode_profile(each) for each in (right, wrong, right)], LAYOUT)
    assert decoded.refused.keys() == {1}
    assert [decoded.matrix.profile(row) for row in range(3)] == [right, {}, right]


def test_sums_are_larger_than_one_window_may_be() -> None:
    large: Profile = {"output.class": FeatureCounts([MAX_COUNT, 0, 0])}
    encoded = encode_profile(large)
    assert decode_profiles([encoded], LAYOUT).refused
    decoded = decode_profiles([encoded], LAYOUT, MAX_COUNT)
    assert decoded.matrix.profile(0) == large
    assert encode_profiles(decoded.matrix) == [encode_profile(large, 0)]


def test_offsets_that_are_too_large_to_add_are_given_up() -> None:
    matrix = CountsMatrix.empty(LAYOUT, 2048)
    far = FeatureCounts([2**33, 0, 0, 0, 0, 0], offsets=[2**53, 0, 0, 0, 0, 0])
    for row in range(2048):
        matrix.put(row, {"input.mean": far})
    summed = matrix.summed(Groups(np.zeros(2048, dtype=np.intp))).profile(0)
    assert summed == {"input.mean": FeatureCounts([2**44, 0, 0, 0, 0, 0])}


def _damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(3)):
        match rng.randrange(3):
            case 0 if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            case 1:
                changed.insert(rng.randrange(len(changed) + 1), rng.randrange(256))
            case _ if changed:
                del changed[rng.randrange(len(changed))]
    return bytes(changed)
