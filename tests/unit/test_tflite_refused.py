"""Graphs that are not written as TFLite, because they could not be with exactly their meaning."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from converters.tflite import emit
from converters.tflite.emit import emit_tflite
from converters.tflite.layout import Emission
from converters.tflite.source import read_source
from fleet.protocol.errors import ConversionFailed, UnsupportedOperator
from tests.support.tflite_graphs import graph, weights

node = helper.make_node

REFUSED = {
    "Erf": (node("Erf", ["x"], ["y"], name="odd"), {}, "no counterpart"),
    "Elu": (node("Elu", ["x"], ["y"], name="odd", alpha=0.5), {}, "alpha"),
    "MaxPool": (
        node("MaxPool", ["x"], ["y"], name="odd", kernel_shape=[2, 2], dilations=[2, 2]),
        {},
        "dilations",
    ),
    "ArgMax": (node("ArgMax", ["x"], ["y"], name="odd", select_last_index=1), {}, "last"),
    "Softmax": (node("Softmax", ["x"], ["y"], name="odd", axis=0), {}, "batch"),
    "Pad": (node("Pad", ["x", "p"], ["y"], name="odd", mode="edge"), {"p": [0, 0, 1, 1, 0, 0, 1, 1]}, "edge"),
    "Slice": (
        node("Slice", ["x", "s", "e", "a"], ["y"], name="odd"),
        {"s": [0], "e": [1], "a": [0]},
        "batch",
    ),
    "Resize": (
        node("Resize", ["x", "", "", "s"], ["y"], name="odd", mode="cubic"),
        {"s": [2, 3, 8, 8]},
        "cubic",
    ),
    "NonZero": (node("NonZero", ["x"], ["y"], name="odd"), {}, "depends on data"),
    "RandomNormalLike": (node("RandomNormalLike", ["x"], ["y"], name="odd"), {}, "same answers"),
    "Cast": (node("Cast", ["x"], ["y"], name="odd", to=TensorProto.DOUBLE), {}, "float64"),
}


@pytest.mark.parametrize("operator", REFUSED)
def test_refusal_names_node_operator_and_way_out(operator: str) -> None:
    odd, integers, why = REFUSED[operator]
    constants = {name: np.array(value, dtype=np.int64) for name, value in integers.items()}
    batch = 2 if operator == "Resize" else "N"
    model = graph([odd], {"x": (batch, 3, 4, 4)}, constants)
    if not model.graph.output[0].type.tensor_type.HasField("shape"):
        model.graph.output[0].type.tensor_type.shape.SetInParent()
    with pytest.raises(UnsupportedOperator, match=f"'odd' .{operator}.*{why}") as caught:
        emit_tflite(model)
    assert "ONNX" in caught.value.remedy


def test_attribute_that_nobody_read_is_refused() -> None:
    model = graph([node("Relu", ["x"], ["y"], name="odd")], {"x": ("N", 3)})
    emission = Emission(read_source(model))
    emission.source.nodes[0].attributes["surprise"] = 1
    with pytest.raises(UnsupportedOperator, match="surprise"):
        emit._emit_node(emission, emission.source.nodes[0])  # what ONNX's checker would refuse


def test_open_shape_beyond_the_batch_is_refused() -> None:
    with pytest.raises(ConversionFailed, match="Dimension 1 of input 'x'"):
        emit_tflite(graph([node("Relu", ["x"], ["y"])], {"x": ("N", "M")}))


def test_other_operator_set_is_refused() -> None:
    with pytest.raises(ConversionFailed, match="operator set 12"):
        emit_tflite(graph([node("Relu", ["x"], ["y"])], {"x": ("N", 3)}, opset=12))


def test_weights_in_another_file_are_refused() -> None:
    model = graph([node("MatMul", ["x", "w"], ["y"])], {"x": ("N", 3)}, {"w": weights(1, 3, 4)})
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    with pytest.raises(ConversionFailed, match="another file"):
        emit_tflite(model)


def test_invalid_graph_is_refused() -> None:
    with pytest.raises(ConversionFailed, match="not valid ONNX"):
        emit_tflite(ModelProto())


def test_shapes_that_do_not_fit_are_refused() -> None:
    model = graph([node("Relu", ["x"], ["y"])], {"x": ("N", 3)})
    model.graph.node[0].CopyFrom(node("MatMul", ["x", "x"], ["y"], name="odd"))
    with pytest.raises(ConversionFailed, match="odd"):
        emit_tflite(model)


def test_output_that_depends_on_nothing_is_refused() -> None:
    model = graph([node("Relu", ["w"], ["y"])], {"x": ("N", 3)}, {"w": weights(1, 3)})
    with pytest.raises(ConversionFailed, match="constant"):
        emit_tflite(model)
