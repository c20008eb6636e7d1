"""What tidying leaves of a graph, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from converters.graphs.tidy import tidy
from fleet.protocol.errors import ConversionFailed, UnsupportedOperator
from fleet.protocol.manifest import Signature, Tensor

X = np.random.RandomState(0).standard_normal((5, 3)).astype(np.float32)
SIGNATURE = Signature(
    inputs=(Tensor("input", "float32", (-1, 3)),),
    outputs=(Tensor("values", "float32", (-1, 3)),),
    task="regression",
)


def _model(
    nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.generic]], **opsets: int
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "exported",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    imports = [
        helper.make_opsetid("", 17),
        *(helper.make_opsetid(k.replace("_", "."), v) for k, v in opsets.items()),
    ]
    return helper.make_model(graph, opset_imports=imports)


def _run(model: onnx.ModelProto) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: NDArray[np.float32] = session.run(["values"], {"input": X})[0]
    return answer


def _kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_only_what_the_output_needs_stays_and_answers_the_same() -> None:
    weights = np.random.RandomState(1).standard_normal((3, 3)).astype(np.float32)
    model = _model(
        [
            helper.make_node("Cast", ["input"], ["cast_17"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["cast_17", "w_4"], ["product"]),
            helper.make_node("Add", ["product", "b_9"], ["sum"]),
            helper.make_node("ArgMax", ["sum"], ["label"]),
            helper.make_node("Reshape", ["sum", "shape"], ["same"]),
            helper.make_node("Identity", ["same"], ["out"]),
        ],
        {
            "w_4": weights,
            "b_9": np.array([[1.0, 2.0, 3.0]], dtype=np.float32),
            "shape": np.array([-1, 3], dtype=np.int64),
        },
    )
    tidied = tidy(model, SIGNATURE, "out")
    assert [node.name for node in tidied.graph.node] == ["MatMul_0", "Add_0"]
    assert {tensor.name: list(tensor.dims) for tensor in tidied.graph.initializer} == {
        "MatMul_0.1": [3, 3],
        "Add_0.1": [3],
    }
    assert tidied.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    np.testing.assert_allclose(_run(tidied), X @ weights + np.array([1.0, 2.0, 3.0]), rtol=1e-5)
    assert len(model.graph.node) == 6  # what was given is as it was


def test_a_cast_that_changes_the_type_stays() -> None:
    nodes = [
        helper.make_node("Cast", ["input"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["out"], to=TensorProto.FLOAT),
    ]
    tidied = tidy(_model(nodes, {}), SIGNATURE, "out")
    assert _kinds(tidied) == ["Cast", "Cast"]
    np.testing.assert_array_equal(_run(tidied), np.trunc(X))


def test_what_depends_on_constants_alone_is_computed_once() -> None:
    nodes = [
        helper.make_node("Sqrt", ["variance"], ["deviation"]),
        helper.make_node("Div", ["input", "deviation"], ["out"]),
    ]
    tidied = tidy(_model(nodes, {"variance": np.array([4.0, 9.0, 16.0], dtype=np.float32)}), SIGNATURE, "out")
    assert _kinds(tidied) == ["Div"]
    np.testing.assert_allclose(_run(tidied), X / [2.0, 3.0, 4.0], rtol=1e-6)


def test_a_row_that_something_else_takes_keeps_its_shape() -> None:
    """Concat joins tensors of two dimensions: flattening its operand would break it."""
    nodes = [
        helper.make_node("Add", ["input", "row"], ["shifted"]),
        helper.make_node("Concat", ["shifted", "row"], ["joined"], axis=0),
        helper.make_node("ReduceSum", ["joined", "axis"], ["total"], keepdims=1),
        helper.make_node("Add", ["input", "total"], ["out"]),
    ]
    row = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)
    tidied = tidy(_model(nodes, {"row": row, "axis": np.array([0], dtype=np.int64)}), SIGNATURE, "out")
    assert [list(tensor.dims) for tensor in tidied.graph.initializer if "Add" in tensor.name] == [[1, 3]]
    np.testing.assert_allclose(_run(tidied), X + (X + row).sum(axis=0) + row, rtol=1e-5)


def test_a_model_that_gives_its_input_stays_a_model() -> None:
    tidied = tidy(_model([helper.make_node("Identity", ["input"], ["out"])], {}), SIGNATURE, "out")
    np.testing.assert_array_equal(_run(tidied), X)


def test_bodies_of_loops_keep_what_they_take_from_around_them() -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["row", "outer_2"], ["row_out"])],
        "body",
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("row_out", TensorProto.FLOAT, [3])],
    )
    nodes = [
        helper.make_node("Identity", ["shift"], ["outer_1"]),
        helper.make_node("Identity", ["outer_1"], ["outer_2"]),
        helper.make_node("Scan", ["input"], ["out"], body=body, num_scan_inputs=1),
    ]
    tidied = tidy(_model(nodes, {"shift": np.array([1.0, 2.0, 3.0], dtype=np.float32)}), SIGNATURE, "out")
    assert _kinds(tidied) == ["Scan"]
    np.testing.assert_allclose(_run(tidied), X + np.array([1.0, 2.0, 3.0]), rtol=1e-6)


def test_a_foreign_operator_is_named() -> None:
    node = helper.make_node("Gelu", ["input"], ["out"], domain="com.microsoft")
    with pytest.raises(UnsupportedOperator, match=r"com\.microsoft\.Gelu"):
        tidy(_model([node], {}, com_microsoft=1), SIGNATURE, "out")


def test_an_output_that_nothing_computes_is_refused() -> None:
    with pytest.raises(ConversionFailed, match="'scores'"):
        tidy(_model([helper.make_node("Relu", ["input"], ["out"])], {}), SIGNATURE, "scores")


def test_a_shape_that_the_graph_does_not_give_is_refused() -> None:
    wrong = Signature(inputs=SIGNATURE.inputs, outputs=(Tensor("values", "float32", (-1, 4)),))
    with pytest.raises(ConversionFailed, match="not valid ONNX"):
        tidy(_model([helper.make_node("Relu", ["input"], ["out"])], {}), wrong, "out")
