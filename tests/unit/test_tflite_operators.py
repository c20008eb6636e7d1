"""Each ONNX operator answers as TFLite what onnxruntime answers, for every batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.support.tflite_graphs import OPSET, assert_same_answers, graph, weights

IMAGE = ("N", 4, 9, 8)
FLAT = ("N", 6)


@dataclass
class Case:
    """One operator between ``x`` and ``y``; constants follow ``x`` as inputs, in their order."""

    operator: str
    attributes: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int | str, ...] = FLAT
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    opset: int = OPSET
    output_type: int = TensorProto.FLOAT
    inputs: tuple[str, ...] | None = None
    label: str = ""

    def __str__(self) -> str:
        return f"{self.operator}{'-' if self.label else ''}{self.label}"


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def scalar(value: float) -> NDArray[np.float32]:
    return np.array(value, dtype=np.float32)


UNARY = [
    Case(name)
    for name in ("Relu", "Sigmoid", "Tanh", "HardSwish", "Exp", "Neg", "Abs", "Floor", "Ceil", "Round", "Sin")
]
ACTIVATIONS = [
    Case("Clip", constants={"low": scalar(0), "high": scalar(6)}, label="relu6"),
    Case("Clip", constants={"low": scalar(-1), "high": scalar(1)}, label="n1-to-1"),
    Case("Clip", constants={"low": scalar(-0.5), "high": scalar(0.7)}, label="general"),
    Case("Clip", constants={"low": scalar(0.2)}, label="low"),
    Case("Clip", constants={"high": scalar(0.2)}, inputs=("x", "", "high"), label="high"),
    Case("LeakyRelu", {"alpha": 0.3}),
    Case("PRelu", shape=IMAGE, constants={"slope": weights(1, 4, 1, 1)}),
    Case("Elu"),
    Case("Gelu", opset=20),
    Case("Gelu", {"approximate": "tanh"}, opset=20, label="tanh"),
    Case("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    Case("Softmax"),
    Case("Softmax", {"axis": 1}, shape=IMAGE, label="channels"),
    Case("Softmax", {"axis": 2}, shape=IMAGE, label="rows"),
    Case("LogSoftmax"),
]
ARITHMETIC = [
    Case(name, shape=shape, constants={"c": constant + 2}, label=label)
    for name in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Pow")
    for label, shape, constant in (
        ("scalar", FLAT, np.abs(weights(1))),
        ("row", FLAT, np.abs(weights(2, 6))),
        ("channel", IMAGE, np.abs(weights(3, 4, 1, 1))),
    )
    if name != "Pow"
] + [
    Case("Pow", constants={"c": scalar(2)}, label="square"),
    Case("Pow", constants={"c": scalar(3)}, label="cube"),
    Case("Sub", constants={"c": scalar(3)}, inputs=("c", "x"), label="from"),
    Case("Sum", constants={"a": weights(1, 6), "b": scalar(1)}),
    Case("Min", constants={"a": weights(1, 6), "b": scalar(0.1)}, label="three"),
    Case("Reciprocal", constants={}),
]
PRODUCTS = [
    Case("MatMul", constants={"w": weights(1, 6, 3)}),
    Case("MatMul", shape=("N", 5, 6), constants={"w": weights(1, 6, 3)}, label="rank3"),
    Case("MatMul", shape=("N", 5, 6), constants={"w": weights(1, 1, 6, 3)[0]}, label="batch"),
    Case("MatMul", shape=("N", 6, 2), constants={"w": weights(1, 3, 6)}, inputs=("w", "x"), label="left"),
    Case("Gemm", constants={"w": weights(1, 6, 3), "b": weights(2, 3)}),
    Case("Gemm", {"transB": 1}, constants={"w": weights(1, 3, 6)}, label="no-bias"),
    Case(
        "Gemm",
        {"transB": 1, "alpha": 0.5, "beta": 2.0},
        constants={"w": weights(1, 3, 6), "b": weights(2, 1, 3)},
        label="scaled",
    ),
    Case("Gemm", constants={"w": weights(1, 6, 3), "b": weights(2, 1)}, label="one-bias"),
    Case("Gemm", {"transA": 1}, shape=(6, 4), constants={"w": weights(1, 6, 3), "b": weights(2, 3)}),
    Case(
        "Gemm",
        {"alpha": 0.5, "beta": 3.0},
        shape=(4, 6),
        constants={"w": weights(1, 3, 4), "b": weights(2, 3, 6)},
        inputs=("w", "x", "b"),
        label="left",
    ),
]
REDUCTIONS = [
    Case(f"Reduce{kind}", {"axes": [1], "keepdims": keep}, shape=IMAGE, opset=opset, label=f"{keep}")
    for kind, opset in (
        ("Mean", 17),
        ("Max", 17),
        ("Min", 17),
        ("Prod", 17),
        ("SumSquare", 17),
        ("L1", 17),
        ("L2", 17),
    )
    for keep in (0, 1)
] + [
    Case("ReduceSum", {"keepdims": 0}, shape=IMAGE, constants={"axes": ints(-1, 2)}),
    Case("ReduceMean", shape=IMAGE, constants={"axes": ints(2, 3)}, opset=18, label="input"),
    Case("ReduceSum", {"noop_with_empty_axes": 1}, shape=IMAGE, label="noop"),
    Case("GlobalAveragePool", shape=IMAGE),
    Case("GlobalMaxPool", shape=IMAGE),
    Case("ArgMax", {"axis": 1, "keepdims": 0}, output_type=TensorProto.INT64),
    Case("ArgMax", {"axis": -1}, shape=IMAGE, output_type=TensorProto.INT64, label="keep"),
    Case("ArgMin", {"axis": 2, "keepdims": 0}, shape=IMAGE, output_type=TensorProto.INT64),
]
SHAPES = [
    Case("Flatten", shape=IMAGE),
    Case("Flatten", {"axis": 2}, shape=IMAGE, label="axis2"),
    Case("Reshape", shape=IMAGE, constants={"s": ints(0, 2, -1)}),
    Case("Reshape", shape=IMAGE, constants={"s": ints(-1, 9, 8)}, label="channels-to-batch"),
    Case("Transpose", {"perm": [0, 2, 3, 1]}, shape=IMAGE),
    Case("Transpose", {"perm": [0, 3, 1, 2]}, shape=IMAGE, label="rotated"),
    Case("Squeeze", shape=("N", 1, 6), constants={"a": ints(1)}),
    Case("Unsqueeze", shape=FLAT, constants={"a": ints(1, 3)}),
    Case("Expand", shape=("N", 1, 6), constants={"s": ints(1, 5, 1)}),
    Case("Tile", shape=IMAGE, constants={"r": ints(1, 2, 1, 3)}),
    Case("Identity"),
    Case("Dropout"),
    Case("DepthToSpace", {"blocksize": 2}, shape=("N", 8, 3, 5)),
    Case("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, shape=("N", 8, 3, 5), label="crd"),
    Case("SpaceToDepth", {"blocksize": 2}, shape=("N", 3, 4, 6)),
]
SELECTIONS = [
    Case("Slice", shape=IMAGE, constants={"s": ints(1, 2), "e": ints(3, -1), "a": ints(1, 3)}),
    Case("Slice", shape=IMAGE, constants={"s": ints(0, 1), "e": ints(2**62, 2**62)}, label="to-the-end"),
    Case(
        "Slice",
        shape=IMAGE,
        constants={"s": ints(-1, 7), "e": ints(-(2**62), 0), "a": ints(1, 2), "t": ints(-1, -3)},
        label="backwards",
    ),
    Case("Gather", {"axis": 1}, shape=IMAGE, constants={"i": ints(2, -1, 0)}),
    Case("Gather", {"axis": 1}, shape=IMAGE, constants={"i": np.array(2, dtype=np.int64)}, label="one"),
    Case(
        "Gather", {"axis": 2}, shape=("N", 3, 5), constants={"i": ints(2, 1, 0, 4).reshape(2, 2)}, label="2d"
    ),
    Case("Concat", {"axis": 1}, shape=(2, 6), constants={"c": weights(1, 2, 3)}),
    Case("Pad", shape=IMAGE, constants={"p": ints(0, 0, 1, 2, 0, 0, 3, 0)}),
    Case("Pad", shape=IMAGE, constants={"p": ints(0, 0, 1, 2, 0, 0, 3, 0), "v": scalar(-1.5)}, label="value"),
    Case(
        "Pad",
        {"mode": "reflect"},
        shape=IMAGE,
        constants={"p": ints(0, 0, 1, 2, 0, 0, 3, 0)},
        label="reflect",
    ),
    Case(
        "Pad",
        shape=IMAGE,
        constants={"p": ints(1, 2), "a": ints(3)},
        inputs=("x", "p", "", "a"),
        opset=18,
        label="axes",
    ),
    Case(
        "BatchNormalization",
        shape=IMAGE,
        constants={
            "s": weights(1, 4),
            "b": weights(2, 4),
            "m": weights(3, 4),
            "v": np.abs(weights(4, 4)) + 0.1,
        },
    ),
]
RESIZES = [
    Case(
        "Resize",
        {"mode": mode, "coordinate_transformation_mode": coordinates, **extra},
        shape=("N", 3, 5, 6),
        constants={"roi": floats(), "scales": floats(1, 1, *scales)},
        label=f"{mode}-{coordinates}-{'x'.join(map(str, scales))}-{extra.get('nearest_mode', '')}",
    )
    for mode, coordinates, extra, scales in (
        ("nearest", "half_pixel", {}, (2, 2)),
        ("nearest", "half_pixel", {"nearest_mode": "ceil"}, (2, 3)),
        ("nearest", "asymmetric", {"nearest_mode": "floor"}, (2, 3)),
        ("nearest", "asymmetric", {"nearest_mode": "floor"}, (0.6, 0.5)),
        ("nearest", "align_corners", {}, (2, 2)),
        ("linear", "half_pixel", {}, (2, 2)),
        ("linear", "half_pixel", {}, (3, 0.5)),
        ("linear", "pytorch_half_pixel", {}, (2, 2)),
        ("linear", "align_corners", {}, (2, 3)),
        ("linear", "asymmetric", {}, (2, 2)),
    )
]

CASES = [
    *UNARY,
    *ACTIVATIONS,
    *ARITHMETIC,
    *PRODUCTS,
    *REDUCTIONS,
    *SHAPES,
    *SELECTIONS,
    *RESIZES,
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator_answers_as_in_onnx(case: Case) -> None:
    inputs = case.inputs or ("x", *case.constants)
    node = helper.make_node(case.operator, list(inputs), ["y"], **case.attributes)
    model = graph([node], {"x": case.shape}, case.constants, opset=case.opset, output_type=case.output_type)
    assert_same_answers(model)


@pytest.mark.parametrize("operator", ["Log", "Sqrt"])
def test_operator_of_positive_numbers_answers_as_in_onnx(operator: str) -> None:
    nodes = [helper.make_node("Abs", ["x"], ["a"]), helper.make_node(operator, ["a"], ["y"])]
    assert_same_answers(graph(nodes, {"x": FLAT}))


@pytest.mark.parametrize("operator", ["Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"])
def test_comparison_chooses_as_in_onnx(operator: str) -> None:
    nodes = [
        helper.make_node(operator, ["x", "z"], ["c"]),
        helper.make_node("Not", ["c"], ["d"]),
        helper.make_node("Where", ["d", "x", "k"], ["y"]),
    ]
    assert_same_answers(graph(nodes, {"x": FLAT, "z": FLAT}, {"k": weights(1, 6)}))


@pytest.mark.parametrize("operator", ["And", "Or", "Xor"])
def test_logic_answers_as_in_onnx(operator: str) -> None:
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["a"]),
        helper.make_node("Cast", ["z"], ["b"], to=TensorProto.BOOL),
        helper.make_node(operator, ["a", "b"], ["c"]),
        helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
    ]
    assert_same_answers(graph(nodes, {"x": FLAT, "z": FLAT}, {"zero": scalar(0)}))


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL])
def test_cast_cuts_towards_zero_as_in_onnx(kind: int) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "three"], ["a"]),
        helper.make_node("Cast", ["a"], ["y"], to=kind),
    ]
    assert_same_answers(graph(nodes, {"x": FLAT}, {"three": scalar(3)}, output_type=kind))


def test_two_computed_operands_broadcast() -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], axes=[2, 3]),
        helper.make_node("Mul", ["x", "m"], ["a"]),
        helper.make_node("MatMul", ["a", "b"], ["y"]),
    ]
    assert_same_answers(graph(nodes, {"x": ("N", 3, 4, 5), "b": ("N", 3, 5, 2)}))


def test_gemm_adds_what_is_computed() -> None:
    node = helper.make_node("Gemm", ["x", "w", "c"], ["y"], alpha=2.0, beta=0.5)
    assert_same_answers(graph([node], {"x": FLAT, "c": ("N", 3)}, {"w": weights(1, 6, 3)}))


@pytest.mark.parametrize("opset", [17, 18])
def test_split_gives_every_part(opset: int) -> None:
    node = helper.make_node("Split", ["x", "sizes"], ["y", "z"], axis=1)
    assert_same_answers(graph([node], {"x": IMAGE}, {"sizes": ints(1, 3)}, outputs=("y", "z"), opset=opset))


def test_missing_numbers_are_found() -> None:
    nodes = [
        helper.make_node("Log", ["x"], ["l"]),  # of negative numbers: not a number
        helper.make_node("IsNaN", ["l"], ["n"]),
        helper.make_node("Where", ["n", "k", "x"], ["y"]),
    ]
    assert_same_answers(graph(nodes, {"x": FLAT}, {"k": weights(1, 6)}))


def test_exporters_shape_arithmetic_vanishes() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    assert_same_answers(graph(nodes, {"x": IMAGE}, {"zero": ints(0), "rest": ints(8, 36)}))
