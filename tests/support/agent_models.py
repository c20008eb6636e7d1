"""Small ONNX models for the agent's tests, whose every answer a test can work out.

=============  =====================================================  ========================================
function       inputs                                                 first output
=============  =====================================================  ========================================
`linear`       ``pixels`` (N, 4)                                      ``softmax(pixels @ weights)``
`costly`       ``pixels`` (N, 4)                                      the same, the later or in more memory
                                                                      the brighter the brightest pixel is
`shifted`      ``pixels`` (N, 4)                                      ``softmax(pixels @ weights + shift)``
`tabular`      ``numbers`` (N, 2), or missing; ``city``, text (N, 1)  ``softmax([numbers, code] @ weights)``
`word_score`   ``word``, text (N, 1)                                  a number for each known word
`halving`      ``frame`` (N, 2, 2)                                    half of the input, in its shape
=============  =====================================================  ========================================
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

PIXELS, CLASSES = 4, 3
SHIFTS = 32
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
    idle_rounds: int = 0,
) -> bytes:
    """Return a classifier of four pixels.

    Args:
        weights: Shape (4, 3).
        padding: Unused weights.
        negative_gives_nan: Answer NaN to inputs with negative sum.
        batch: Size of the batch, if it takes one only.
        idle_rounds: How often a loop that changes nothing is gone through for every answer.
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
    if idle_rounds:
        constants |= {"rounds": np.array(idle_rounds, dtype=np.int64), "on": np.array(True)}
        nodes.append(helper.make_node("Loop", ["rounds", "on", last], ["kept"], body=_idle_round()))
        last = "kept"
    outputs = [_value("probabilities", TensorProto.FLOAT, [batch, CLASSES])]
    if padding:
        constants["padding"] = np.frombuffer(padding, dtype=np.uint8)
        nodes.append(helper.make_node("Identity", ["padding"], ["unused"]))
        outputs.append(_value("unused", TensorProto.UINT8, [len(padding)]))
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
    return _model(nodes, [_value("pixels", TensorProto.FLOAT, [batch, PIXELS])], outputs, constants)


def costly(weights: NDArray[np.float32], *, rounds: int = 0, numbers: int = 0) -> bytes:
    """Return a classifier of four pixels that costs the more, the farther the brightest pixel is above 1.

    Args:
        weights: Shape (4, 3).
        rounds: Rounds of a loop for each unit above 1; a round takes some microseconds.
        numbers: Numbers of four bytes that it holds meanwhile for each unit above 1.
    """
    constants: dict[str, NDArray[Any]] = {
        "weights": weights,
        "one": np.array(1, dtype=np.float32),
        "zero": np.array(0, dtype=np.float32),
        "rounds": np.array(rounds, dtype=np.float32),
        "numbers": np.array([numbers], dtype=np.float32),
        "first": np.array(0, dtype=np.int64),
    }
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["goes_on"], ["still_goes_on"]),
            helper.make_node("Sin", ["value"], ["next_value"]),
        ],
        "round",
        [
            _value("number", TensorProto.INT64, []),
            _value("goes_on", TensorProto.BOOL, []),
            _value("value", TensorProto.FLOAT, []),
        ],
        [_value("still_goes_on", TensorProto.BOOL, []), _value("next_value", TensorProto.FLOAT, [])],
    )
    nodes = [
        helper.make_node("MatMul", ["pixels", "weights"], ["logits"]),
        helper.make_node("ReduceMax", ["pixels"], ["brightest"], keepdims=0),
        helper.make_node("Sub", ["brightest", "one"], ["above"]),
        helper.make_node("Relu", ["above"], ["excess"]),
        helper.make_node("Mul", ["excess", "numbers"], ["more_numbers"]),
        helper.make_node("Add", ["more_numbers", "one"], ["length"]),
        helper.make_node("Cast", ["length"], ["shape"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Gather", ["zeros", "first"], ["start"]),
        helper.make_node("Mul", ["excess", "rounds"], ["all_rounds"]),
        helper.make_node("Cast", ["all_rounds"], ["trips"], to=TensorProto.INT64),
        helper.make_node("Loop", ["trips", "", "start"], ["turned"], body=body),
        helper.make_node("Add", ["zeros", "turned"], ["turned_zeros"]),
        helper.make_node("ReduceSum", ["turned_zeros"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["logits", "nothing"], ["same"]),
        helper.make_node("Softmax", ["same"], ["probabilities"], axis=1),
    ]
    return _model(
        nodes,
        [_value("pixels", TensorProto.FLOAT, ["N", PIXELS])],
        [_value("probabilities", TensorProto.FLOAT, ["N", CLASSES])],
        constants,
    )


def shifted(weights: NDArray[np.float32], shift: NDArray[np.float32]) -> bytes:
    """Return a classifier of four pixels in ONNX Runtime's own format, which is mapped and not read.

    The shift is there `SHIFTS` times, and their mean is added: of weights below 128 bytes the runtime takes a
    copy after all.

    Args:
        weights: Shape (4, 3).
        shift: Shape (3,).
    """
    shifts = np.tile(shift, (SHIFTS, 1))
    made = _model(
        [
            helper.make_node("MatMul", ["pixels", "weights"], ["logits"]),
            helper.make_node("Unsqueeze", ["logits", "axis"], ["rows"]),
            helper.make_node("Add", ["rows", "shifts"], ["moved_rows"]),
            helper.make_node("ReduceMean", ["moved_rows"], ["moved"], axes=[1], keepdims=0),
            helper.make_node("Softmax", ["moved"], ["probabilities"], axis=1),
        ],
        [_value("pixels", TensorProto.FLOAT, ["N", PIXELS])],
        [_value("probabilities", TensorProto.FLOAT, ["N", CLASSES])],
        {"weights": weights, "axis": np.array([1], dtype=np.int64), "shifts": shifts},
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.ort"
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
        return path.read_bytes()


def _idle_round() -> onnx.GraphProto:
    """Return the body of a loop that hands on what it is given."""
    nodes = [
        helper.make_node("Identity", ["go_on"], ["still_on"]),
        helper.make_node("Identity", ["held"], ["handed_on"]),
    ]
    inputs = [
        _value("round", TensorProto.INT64, []),
        _value("go_on", TensorProto.BOOL, []),
        _value("held", TensorProto.FLOAT, ["N", CLASSES]),
    ]
    outputs = [
        _value("still_on", TensorProto.BOOL, []),
        _value("handed_on", TensorProto.FLOAT, ["N", CLASSES]),
    ]
    return helper.make_graph(nodes, "idle round", inputs, outputs)


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
