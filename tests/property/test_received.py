"""Sets of received numbers are exact, small and survive being written."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from hub.store.received import Received

numbers = st.lists(st.integers(0, 200) | st.integers(0, 2**53), max_size=80)


@given(numbers)
def test_a_number_is_new_exactly_once(each: list[int]) -> None:
    received, known = Received(), set()
    for number in each:
        assert received.add(number) == (number not in known)
        known.add(number)
    assert all(number in received for number in known)
    assert all((number + 1 in received) == (number + 1 in known) for number in known)


@given(numbers)
def test_what_is_written_is_read_again(each: list[int]) -> None:
    received = Received.of(each)
    again = Received.from_bytes(received.to_bytes())
    assert again.to_bytes() == received.to_bytes()
    assert len(again) == len(received)
    for number in {0, *each, *(number + 1 for number in each)}:
        assert (number in again) == (number in received)


@given(st.permutations(range(60)))
def test_what_has_no_gaps_is_one_range_in_whatever_order_it_came(order: list[int]) -> None:
    received = Received.of(order)
    assert len(received) == 1
    assert received.to_bytes() == Received.of(range(60)).to_bytes()


@given(numbers)
def test_the_number_of_ranges_is_bounded_and_what_was_received_stays_so(each: list[int]) -> None:
    with patch("hub.store.received.MAX_RANGES", 4):
        received = Received.of(each)
    assert len(received) <= 4
    assert all(number in received for number in each)
