"""Arrays of text: what was laid out comes back, and bytes from anywhere give an array or our error."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet.protocol.errors import InvalidMessage
from fleet.protocol.text import decode_text, encode_text

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(texts=TEXTS, columns=st.integers(1, 3))
@example(texts=["", "a\0b", "東京", "🦀"], columns=2)
def test_text_comes_back_in_its_shape(texts: list[str], columns: int) -> None:
    rows = len(texts) // columns
    array = np.array(texts[: rows * columns], dtype=object).reshape(rows, columns)
    back = decode_text(encode_text(array), (rows, columns))
    assert (back.shape, back.dtype) == ((rows, columns), np.dtype(object))
    assert back.tolist() == array.tolist()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(texts=TEXTS)
def test_the_layout_is_a_length_before_each_text(texts: list[str]) -> None:
    expected = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    assert encode_text(np.array(texts, dtype=object)) == expected


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.binary(max_size=40), count=st.integers(0, 5))
@example(data=b"\xff\xff\xff\xffabc", count=1)
@example(data=b"\x01\0\0\0\xff", count=1)
@example(data=b"\x01\0\0", count=1)
def test_any_bytes_are_text_of_that_shape_or_an_error_of_ours(data: bytes, count: int) -> None:
    try:
        array = decode_text(data, (count,))
    except InvalidMessage:
        return
    assert array.shape == (count,)
    assert encode_text(array) == data


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_texts_than_stated_is_an_error(count: int) -> None:
    with pytest.raises(InvalidMessage, match=f"2 texts .* {count}"):
        decode_text(encode_text(np.array(["a", "b"], dtype=object)), (count,))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(texts=TEXTS.filter(bool), data=st.data())
def test_a_cut_is_noticed(texts: list[str], data: st.DataObject) -> None:
    whole = encode_text(np.array(texts, dtype=object))
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(InvalidMessage):
        decode_text(whole[:end], (len(texts),))
