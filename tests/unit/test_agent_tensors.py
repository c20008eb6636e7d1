"""What a client may send as a tensor, for each element type."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from agent.serving.binary import encode_tensor
from agent.serving.tensors import DATATYPES, RequestTensor, read_inputs, write_output
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.manifest import Signature, Tensor

OUTPUT = (Tensor("y", "float32", (-1, 1)),)


def read(dtype: str, data: list[Any], *, missing: bool = False) -> np.ndarray[Any, Any]:
    signature = Signature(inputs=(Tensor("x", dtype, (-1, 2), missing=missing),), outputs=OUTPUT)
    sent = RequestTensor("x", [1, 2], DATATYPES[dtype], data)
    return read_inputs([sent], signature, {})["x"]


@pytest.mark.parametrize(
    ("dtype", "data"),
    [
        ("bool", [True, False]),
        ("uint8", [0, 255]),
        ("int8", [-128, 127]),
        ("int64", [-(2**63), 2**63 - 1]),
        ("uint64", [0, 2**64 - 1]),
        ("float16", [1, -0.5]),
        ("float32", [1.5, 2]),
        ("float64", [1e300, 0]),
        ("str", ["", "a\u0000b – 東京"]),
    ],
)
def test_what_comes_is_what_the_model_gets_and_what_goes_back(dtype: str, data: list[Any]) -> None:
    array = read(dtype, data)
    assert array.shape == (1, 2)
    assert array.dtype == (object if dtype == "str" else np.dtype(dtype))
    answer = write_output("x", array)
    assert (answer.shape, answer.datatype) == ((1, 2), DATATYPES[dtype])
    assert json.loads(json.dumps(answer.data)) == data


@pytest.mark.parametrize(
    ("dtype", "data"),
    [
        ("bool", [1, 0]),
        ("bool", ["true", "false"]),
        ("uint8", [0, 256]),
        ("uint8", [0, -1]),
        ("int8", [0, 128]),
        ("int64", [0, 2**63]),
        ("int32", [0, 1.5]),
        ("int32", [0, True]),
        ("int32", [0, "1"]),
        ("int32", [0, None]),
        ("float16", [0, 1e6]),
        ("float32", [0, 10**400]),
        ("float32", [0, {}]),
        ("float32", [0, [1, 2]]),
        ("float32", [[[0]], [[1, 2]]]),
        ("str", ["a", None]),
        ("str", ["a", 1]),
        ("str", ["a", ["b"]]),
    ],
)
@pytest.mark.parametrize("missing", [False, True])
def test_what_an_element_type_cannot_hold_is_refused(dtype: str, data: list[Any], missing: bool) -> None:
    with pytest.raises(InvalidMessage):
        read(dtype, data, missing=missing)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_null_is_a_missing_number_only_where_the_model_says_so(dtype: str) -> None:
    array = read(dtype, [[None, 2.0]], missing=True)
    assert np.isnan(array).tolist() == [[True, False]]
    with pytest.raises(InvalidMessage, match="x"):
        read(dtype, [[None, 2.0]])


def read_bytes(dtype: str, data: bytes, shape: list[int], *, missing: bool = False) -> np.ndarray[Any, Any]:
    signature = Signature(inputs=(Tensor("x", dtype, (-1, 2), missing=missing),), outputs=OUTPUT)
    sent = RequestTensor("x", shape, DATATYPES[dtype])
    return read_inputs([sent], signature, {"x": memoryview(b"?" + data)[1:]})["x"]


@pytest.mark.parametrize("dtype", [dtype for dtype in DATATYPES if dtype != "str"])
def test_bytes_are_little_endian_rows_and_go_back_as_they_came(dtype: str) -> None:
    little = np.array([[1, 0], [0, 1], [1, 1]]).astype(np.dtype(dtype).newbyteorder("<"))
    array = read_bytes(dtype, little.tobytes(), [3, 2])
    assert array.dtype == np.dtype(dtype)
    assert array.tolist() == little.tolist()
    assert array.flags.aligned
    assert encode_tensor(array) == little.tobytes()
    assert encode_tensor(array.T) == little.T.tobytes()


def test_text_as_bytes_goes_back_as_it_came() -> None:
    data = b"\0\0\0\0" + b"\x03\0\0\0\xe6\x9d\xb1"
    array = read_bytes("str", data, [1, 2])
    assert array.tolist() == [["", "東"]]
    assert encode_tensor(array) == data


@pytest.mark.parametrize(
    ("dtype", "data"),
    [
        ("bool", b"\0\2"),
        ("int16", b"\0\0\0"),
        ("int16", b"\0\0\0\0\0"),
        ("float16", np.array([1, np.inf], dtype="<f2").tobytes()),
        ("float64", np.array([1, -np.inf], dtype="<f8").tobytes()),
        ("str", b"\1\0\0\0a"),
        ("str", b"\1\0\0\0a\1\0\0"),
        ("str", b"\1\0\0\0a\2\0\0\0b"),
        ("str", b"\1\0\0\0a\1\0\0\0\xff"),
        ("str", b"\1\0\0\0a\xff\xff\xff\xff"),
    ],
)
@pytest.mark.parametrize("missing", [False, True])
def test_bytes_that_are_no_such_tensor_are_refused(dtype: str, data: bytes, missing: bool) -> None:
    with pytest.raises(InvalidMessage):
        read_bytes(dtype, data, [1, 2], missing=missing)


def test_a_nan_among_bytes_is_a_missing_number_only_where_the_model_says_so() -> None:
    data = np.array([np.nan, 2], dtype="<f4").tobytes()
    assert np.isnan(read_bytes("float32", data, [1, 2], missing=True)).tolist() == [[True, False]]
    with pytest.raises(InvalidMessage, match="not finite"):
        read_bytes("float32", data, [1, 2])
