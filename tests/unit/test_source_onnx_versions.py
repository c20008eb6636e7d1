"""Which onnxruntime a graph needs, against the runtime itself and against what onnx says of its versions."""

from __future__ import annotations

import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from converters.graphs.versions import RELEASES, lowest_ir_version, minimum_onnxruntime, opset_of
from fleet.protocol.errors import ConversionFailed
from fleet.protocol.requirement import version_key


def _model(opset: int, *, ir_version: int = 8, element: int = TensorProto.FLOAT) -> onnx.ModelProto:
    nodes = [helper.make_node("Cast", ["x"], ["narrow"], to=element), helper.make_node("Relu", ["x"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def _loads(model: onnx.ModelProto) -> bool:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's errors have no root of their own
        return False
    return True


@pytest.mark.parametrize(
    ("opset", "ir_version", "release"),
    [(17, 8, "1.20"), (21, 10, "1.20"), (22, 8, "1.21"), (21, 11, "1.23"), (23, 10, "1.23"), (24, 8, "1.24"),
     (17, 13, "1.24"), (26, 13, "1.25")],
)  # fmt: skip
def test_each_version_has_its_first_release(opset: int, ir_version: int, release: str) -> None:
    assert minimum_onnxruntime(_model(opset, ir_version=ir_version)) == release


def test_the_table_agrees_with_the_installed_runtime() -> None:
    installed = version_key(ort.__version__)
    newest = [each for each in RELEASES if version_key(each.version) <= installed][-1]
    assert _loads(_model(newest.opset, ir_version=newest.ir_version))
    assert not _loads(_model(newest.opset + 1))
    assert not _loads(_model(17, ir_version=newest.ir_version + 1))


@pytest.mark.parametrize(("opset", "ir_version"), [(27, 8), (17, 14)])
def test_a_model_from_the_future_is_refused(opset: int, ir_version: int) -> None:
    with pytest.raises(ConversionFailed, match="No known release"):
        minimum_onnxruntime(_model(opset, ir_version=ir_version))


@pytest.mark.parametrize(
    ("element", "ir_version"),
    [(TensorProto.FLOAT16, 8), (TensorProto.FLOAT8E4M3FN, 9), (TensorProto.INT4, 10), (TensorProto.INT2, 13)],
)
def test_element_types_ask_for_the_ir_version_that_has_them(element: int, ir_version: int) -> None:
    assert lowest_ir_version(_model(17, element=element)) == ir_version


def test_both_names_of_the_core_domain_count() -> None:
    model = _model(17)
    model.opset_import[0].domain = "ai.onnx"
    assert (opset_of(model), opset_of(model, "ai.onnx.ml")) == (17, 0)
