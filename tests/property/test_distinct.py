"""Sets of devices: exact while small, near the truth beyond, and merged in any order, again and again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.distinct import FEWEST_ESTIMATED, NOBODY, count_heard, heard_of, merge_heard
from fleet.protocol.errors import InvalidMessage

NAMES = st.sets(st.integers(0, 400).map(lambda number: f"cam-{number}"), max_size=300)


@given(a=NAMES, b=NAMES, c=NAMES)
def test_merging_is_the_union(a: set[str], b: set[str], c: set[str]) -> None:
    one, two, three = heard_of(a), heard_of(b), heard_of(c)
    assert merge_heard([one, two]) == merge_heard([two, one]) == heard_of(a | b)
    assert merge_heard([merge_heard([one, two]), three]) == merge_heard([one, two, three])
    assert merge_heard([one, one]) == one == merge_heard([one, NOBODY])


@given(names=NAMES)
def test_small_sets_are_counted_exactly(names: set[str]) -> None:
    counted = count_heard(heard_of(names))
    if len(names) < FEWEST_ESTIMATED:
        assert counted == len(names)
    else:
        assert counted == pytest.approx(len(names), rel=0.1)


@pytest.mark.parametrize("number", [1_000, 3_000, 20_000, 100_000])
def test_large_sets_take_a_kilobyte_and_are_counted_nearly(number: int) -> None:
    heard = heard_of(f"camera {index}" for index in range(number))
    assert len(heard) == 1024
    assert count_heard(heard) == pytest.approx(number, rel=0.1)  # three standard errors


@pytest.mark.parametrize("size", [7, 1025, 4096])
def test_what_is_no_set_is_refused(size: int) -> None:
    with pytest.raises(InvalidMessage):
        merge_heard([bytes(size), heard_of(["cam-1"])])
    with pytest.raises(InvalidMessage):
        count_heard(bytes(size) if size > 7 else bytes(2000))
