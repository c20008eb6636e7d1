"""Small ONNX models for the agent's tests, whose every answer a test can work out.

=============  =====================================================  ========================================
function       inputs                                                 first output
=============  =====================================================  ========================================
`linear`       ``pixels`` (N, 4)                                      ``softmax(pixels @ weights)``
`tabular`      ``numbers`` (N, 2), or missing; ``city``, text (N, 1)  ``softmax([numbers, code] @ weights)``
`word_score`   ``word``, text (N, 1)                                  a number for each known word
`halving`      ``frame`` (N, 2, 2)                                    half of the input, in its shape
=============  =====================================================  ========================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

PIXELS, CLASSES = 4, 3
CITIES = {"lyon": 1.0, "oslo": -1.0}
MEANS = (40.0, 2.0)
TABULAR_WEIGHTS = np.array([[0.1, -0.1], [0.5, 0.2], [2.0, -2.0]], dtype=np.float32)
TABULAR_CLASSES = ("no", "yes")
WORD_SCORES = {"known": 1.0, "rare": 0.25}

_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
_ML = "ai.onnx.ml"


def linear(
    weights: NDArray[np.float32],
    *,
    padding: bytes = b"",
    negative_gives_nan: bool = False,
    batch: int | str = "N",
) -> bytes:
    """Return a classifier of four pixels.

    Args:
        weights: Shape (4, 3).
        padding: Unused weights.
        negative_gives_nan: Answer NaN to inputs with negative sum.
        batch: Size of the batch, if it takes one only.
    """
    nodes = [helper.make_node("MatMul", ["pixels", "weights"], ["logits"])]
    constants: dict[str, NDArray[Any]] = {"weights": weights}
    last = "logits"
    if negative_gives_nan:  # sqrt of a negative sum is NaN; of a positive one it is multiplied by nothing
        constants |= {"axis": np.array([1], dtype=np.int64), "zero": np.array(0, dtype=np.float32)}
        nodes += [
            helper.make_node("ReduceSum", ["pixels", "axis"], ["sum"]),
            helper.make_node("Sqrt", ["sum"], ["root"]),
            helper.make_node("Mul", ["root", "zero"], ["nothing"]),
            helper.make_node("Add", ["logits", "nothing"], ["spoiled"]),
        ]
        last = "spoiled"
    outputs = [_value("probabilities", TensorProto.FLOAT, [batch, CLASSES])]
    if padding:
        constants["padding"] = np.frombuffer(padding, dtype=np.uint8)
        nodes.append(helper.make_node("Identity", ["padding"], ["unused"]))
        outputs.append(_value("unused", TensorProto.UINT8, [len(padding)]))
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
    return _model(nodes, [_value("pixels", TensorProto.FLOAT, [batch, PIXELS])], outputs, constants)


def tabular() -> bytes:
    """Return a classifier of two numbers, for which it has means, and a city; it names the class too."""
    nodes = [
        helper.make_node("IsNaN", ["numbers"], ["is_missing"]),
        helper.make_node("Where", ["is_missing", "means", "numbers"], ["filled"]),
        _encoder("city", "code", CITIES),
        helper.make_node("Concat", ["filled", "code"], ["joined"], axis=1),
        helper.make_node("MatMul", ["joined", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["number"], axis=1, keepdims=0),
        helper.make_node(
            "LabelEncoder",
            ["number"],
            ["label"],
            domain=_ML,
            keys_int64s=[0, 1],
            values_strings=list(TABULAR_CLASSES),
        ),
    ]
    inputs = [
        _value("numbers", TensorProto.FLOAT, ["N", 2]),
        _value("city", TensorProto.STRING, ["N", 1]),
    ]
    outputs = [
        _value("probabilities", TensorProto.FLOAT, ["N", 2]),
        _value("label", TensorProto.STRING, ["N"]),
    ]
    constants = {"means": np.array(MEANS, dtype=np.float32), "weights": TABULAR_WEIGHTS}
    return _model(nodes, inputs, outputs, constants)


def word_score() -> bytes:
    """Return a model of text alone: a number for each known word, -1 for any other."""
    return _model(
        [_encoder("word", "score", WORD_SCORES, default=-1.0)],
        [_value("word", TensorProto.STRING, ["N", 1])],
        [_value("score", TensorProto.FLOAT, ["N", 1])],
        {},
    )


def halving() -> bytes:
    """Return a model that answers half of its input, in the input's shape."""
    return _model(
        [helper.make_node("Mul", ["frame", "half"], ["copy"])],
        [_value("frame", TensorProto.FLOAT, ["N", 2, 2])],
        [_value("copy", TensorProto.FLOAT, ["N", 2, 2])],
        {"half": np.array(0.5, dtype=np.float32)},
    )


def _encoder(given: str, answer: str, codes: dict[str, float], default: float = 0.0) -> onnx.NodeProto:
    return helper.make_node(
        "LabelEncoder",
        [given],
        [answer],
        domain=_ML,
        keys_strings=list(codes),
        values_floats=list(codes.values()),
        default_float=default,
    )


def _value(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: Mapping[str, NDArray[Any]],
) -> bytes:
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=_OPSETS, ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
