"""Damaged TFLite files are described or refused: nothing else happens."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from converters.tflite.emit import emit_tflite
from converters.tflite.inspect import TfliteModel, inspect_tflite
from converters.tflite.quantize import quantize_tflite_int8
from fleet.protocol.errors import InvalidModel
from tests.support.tflite_graphs import graph, weights
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough


@cache
def file() -> bytes:
    """Return a small int8 file with every table that is looked at."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    constants = {"w": weights(1, 2, 1, 2, 2), "v": weights(2, 8, 2)}
    model = emit_tflite(graph(nodes, {"x": ("N", 1, 3, 3)}, constants))
    return quantize_tflite_int8(model, {"x": weights(3, 4, 1, 3, 3)})


def _described_or_refused(data: bytes) -> None:
    try:
        assert isinstance(inspect_tflite(data), TfliteModel)
    except InvalidModel as error:
        assert str(error)


@settings(max_examples=examples(600), deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes(changes: list[tuple[int, int]]) -> None:
    data = bytearray(file())
    for place, value in changes:
        data[place % len(data)] = value
    _described_or_refused(bytes(data))


@settings(max_examples=examples(300), deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(-(2**31), 2**31 - 1))
def test_changed_references(place: int, value: int) -> None:
    data = bytearray(file())
    place = place % (len(data) // 4) * 4
    data[place : place + 4] = value.to_bytes(4, "little", signed=True)
    _described_or_refused(bytes(data))


@settings(max_examples=examples(200), deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.binary(max_size=40))
def test_cut_and_continued(length: int, rest: bytes) -> None:
    _described_or_refused(file()[: length % len(file())] + rest)
