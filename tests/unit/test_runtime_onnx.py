"""onnxruntime as a judge: sessions, rounding, and what a model asks of a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC

from converters.data.samples import Inputs
from converters.graphs.ort_format import is_ort_format, minimum_release, ort_graph, ort_nodes
from converters.graphs.versions import RELEASES
from converters.runtimes.onnx import ONNXRUNTIME, OnnxSession, footprint, rounding
from converters.runtimes.rounding import greatest_change
from converters.sources.sklearn import open_sklearn
from converters.target import Work
from converters.targets.onnx_fp16 import build as build_fp16
from converters.targets.onnx_int4 import build as build_int4
from converters.targets.onnx_int8 import build as build_int8
from converters.targets.ort import build as build_ort
from fleet.protocol.errors import ConversionFailed
from fleet.protocol.manifest import Signature, Tensor
from tests.support.networks import answers, convolutional, dense
from tests.support.onnx_models import model, value


def _golden(given: Work) -> Inputs:
    return {name: array[:12] for name, array in given.samples().items()}


def _texts() -> tuple[bytes, Signature]:
    """Return a model of two inputs, text and numbers: the numbers, and 10 more where the text is "yes"."""
    known: dict[str, Any] = {
        "keys_strings": ["no", "yes"],
        "values_floats": [0.0, 10.0],
        "default_float": -1.0,
    }
    nodes = [
        helper.make_node("LabelEncoder", ["text"], ["code"], "encode", domain="ai.onnx.ml", **known),
        helper.make_node("Add", ["code", "numbers"], ["sum"], "add"),
    ]
    inputs = [value("text", ["n", 1], TensorProto.STRING), value("numbers", ["n", 1])]
    graph = model(nodes, inputs, [value("sum", ["n", 1])], domains={"ai.onnx.ml": 2})
    takes = (Tensor("text", "str", (-1, 1)), Tensor("numbers", "float32", (-1, 1)))
    signature = Signature(takes, (Tensor("sum", "float32", (-1, 1)),), task="regression")
    return graph.SerializeToString(), signature


def test_several_inputs_and_text_are_taken() -> None:
    graph, signature = _texts()
    inputs = {
        "text": np.array([["yes"], ["no"], ["what"]], dtype=object),
        "numbers": np.array([[1.0], [2.0], [3.0]], dtype=np.float32),
    }
    assert ONNXRUNTIME.open(graph, signature).run(inputs).tolist() == [[11.0], [2.0], [2.0]]
    assert rounding(graph, signature, inputs, 0) == 0.0  # nothing in it is rounded
    found = footprint(graph, signature)
    assert found.operators == ("Add", "ai.onnx.ml.LabelEncoder")


def test_only_the_first_output_of_the_signature_is_given() -> None:
    nodes = [helper.make_node("Split", ["x"], ["a", "b"], "split", axis=1)]
    graph = model(nodes, [value("x", ["n", 4])], [value("a", ["n", 2]), value("b", ["n", 2])])
    tensors = {name: Tensor(name, "float32", (-1, 2)) for name in ("a", "b", "c")}
    data, batch = graph.SerializeToString(), {"x": np.arange(4, dtype=np.float32)[None]}
    takes = (Tensor("x", "float32", (-1, 4)),)
    assert OnnxSession(data, Signature(takes, (tensors["b"],))).run(batch).tolist() == [[2.0, 3.0]]
    with pytest.raises(ConversionFailed, match="no output 'c'"):
        OnnxSession(data, Signature(takes, (tensors["c"],)))


def test_inputs_of_another_shape_are_refused_and_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConversionFailed, match="cannot run"):
        answers(dense().onnx, dense(), {"x": np.zeros((3, 7), dtype=np.float32)})
    assert capfd.readouterr().err == ""  # onnxruntime's own log would come on top


Build = Callable[[Work], bytes]


def _as_it_is(given: Work) -> bytes:
    return given.onnx


@pytest.mark.parametrize("build", [_as_it_is, build_ort, build_int4])
@pytest.mark.parametrize("given", [dense(), convolutional()], ids=["dense", "convolutional"])
def test_rounding_in_float32_is_small_and_more_than_kernels_differ(build: Build, given: Work) -> None:
    built, golden = build(given), _golden(given)
    scale = np.abs(answers(built, given, golden)).max()
    spread = rounding(built, given.signature, golden, 0)
    assert 1e-7 * scale < spread < 1e-3 * scale
    plain = OnnxSession(built, given.signature, optimize=False)
    alone = [plain.run({"x": golden["x"][i : i + 1]}) for i in range(12)]
    assert np.abs(np.concatenate(alone) - answers(built, given, golden)).max() <= spread


def test_rounding_in_float16_covers_what_float16_arithmetic_would_give() -> None:
    given = dense()
    built, golden = build_fp16(given), _golden(given)
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(built).graph.initializer}
    scaled = ((golden["x"] - weights["mean"]) / weights["deviation"]).astype(np.float16)

    def layer(left: NDArray[Any], right: NDArray[Any], bias: NDArray[Any]) -> NDArray[Any]:
        """Return left @ right + bias with every product and every sum rounded to float16."""
        total = np.zeros((len(left), right.shape[1]), dtype=np.float16)
        for k in range(left.shape[1]):
            total = total + left[:, k : k + 1] * right[k]
        return np.asarray(total + bias)

    def named(name: str) -> NDArray[Any]:
        return weights[f"{name}_float16"]

    hidden = np.maximum(layer(scaled, named("w1"), named("b1")), 0)
    half, two = np.float16(0.5), np.float16(2.0)
    hidden = np.maximum(layer(hidden, (named("w2") * half).T, named("b2") * two), 0)
    device = layer(hidden, named("w3"), named("b3")).astype(np.float64)
    here = answers(built, given, golden)
    spread = rounding(built, given.signature, golden, 0)
    difference = np.abs(device - here).max()
    assert 1e-4 < difference <= 2 * spread
    assert spread < 0.05 * np.abs(here).max()


def test_a_broken_scale_is_further_off_than_rounding() -> None:
    given = convolutional()
    int8 = build_int8(given)
    broken = onnx.load_from_string(int8)
    scales = next(t for t in broken.graph.initializer if t.name == "w_scale")
    off = np.asarray(numpy_helper.to_array(scales) * 1.05, dtype=np.float32)
    scales.CopyFrom(numpy_helper.from_array(off, scales.name))
    golden = _golden(given)
    difference = answers(broken.SerializeToString(), given, golden) - answers(int8, given, golden)
    assert np.abs(difference).max() > 2 * rounding(int8, given.signature, golden, 0)


def test_trees_and_support_vectors_are_summed_and_rounded() -> None:
    random = np.random.RandomState(0)
    features = random.standard_normal((200, 6)).astype(np.float32)
    labels = (features[:, 0] * features[:, 1] > 0).astype(int)
    forest = RandomForestClassifier(20, max_depth=5, random_state=0).fit(features, labels)
    machine = SVC(random_state=0).fit(features, labels)
    for estimator in (forest, machine):
        source = open_sklearn(estimator, name="some")
        assert source.onnx is not None
        golden = {"input": features[:10]}
        spread = rounding(source.onnx, source.signature, golden, 0)
        assert 1e-7 < spread < 0.02


def test_rounding_of_answers_that_are_not_finite_is_refused() -> None:
    graph = model([helper.make_node("Log", ["x"], ["y"])], [value("x", ["n", 1])], [value("y", ["n", 1])])
    tensor = Tensor("x", "float32", (-1, 1))
    signature = Signature((tensor,), (Tensor("y", "float32", (-1, 1)),))
    with pytest.raises(ConversionFailed, match="not finite"):
        rounding(graph.SerializeToString(), signature, {"x": np.full((2, 1), -1, dtype=np.float32)}, 0)


def test_one_change_that_gives_no_number_is_enough_to_refuse() -> None:
    outputs = np.zeros((2, 1))
    changed = [np.full((2, 1), 0.5), np.array([[0.25], [np.nan]]), np.full((2, 1), 0.75)]
    assert greatest_change(outputs, changed[::2]) == 0.75
    with pytest.raises(ConversionFailed, match="not finite"):
        greatest_change(outputs, changed)


def test_operators_outside_the_core_carry_their_domain() -> None:
    found = footprint(build_int4(dense()), dense().signature)
    assert "com.microsoft.MatMulNBits" in found.operators
    assert found.runtimes[0].name == "onnxruntime"
    fused = footprint(build_ort(convolutional()), convolutional().signature)
    assert "com.microsoft.FusedConv" in fused.operators


def test_the_release_follows_from_the_operator_set() -> None:
    graph = onnx.load_from_string(dense().onnx)
    for opset, release in ((17, "1.20"), (21, "1.20"), (22, "1.21")):
        graph.opset_import[0].version = opset
        found = footprint(graph.SerializeToString(), dense().signature)
        assert found.runtimes[0].minimum_version == release


def _with_opset(model: bytes, version: int) -> bytes:
    changed = onnx.load_from_string(model)
    changed.opset_import[0].version = version
    changed.ir_version = 11
    return bytes(changed.SerializeToString())


def test_an_ort_file_says_its_release_and_gives_its_nodes_in_order() -> None:
    built = build_ort(convolutional())
    assert is_ort_format(built)
    assert minimum_release(built) == RELEASES[0].version
    work = convolutional()
    newer = replace(work, onnx=_with_opset(work.onnx, 23))
    assert minimum_release(build_ort(newer)) == "1.23"
    seen = {"x"}
    graph = ort_graph(built)
    constants = {graph.Initializers(i).Name().decode() for i in range(graph.InitializersLength())}
    for node in ort_nodes(graph):
        taken = {node.Inputs(i).decode() for i in range(node.InputsLength())}
        assert taken - {""} <= seen | constants
        seen |= {node.Outputs(i).decode() for i in range(node.OutputsLength())}
    assert "y" in seen


def test_an_ort_file_of_an_unknown_version_is_refused() -> None:
    built = bytearray(build_ort(dense()))
    at = built.index(b"\x01\x00\x00\x006\x00")  # the version: a text of one character
    built[at + 4] = ord("9")
    with pytest.raises(ConversionFailed, match="version '9'"):
        footprint(bytes(built), dense().signature)


@pytest.mark.parametrize("broken", [b"", b"not a model", b"\x00\x00\x00\x00ORTM"])
def test_bytes_that_are_no_model_are_refused(broken: bytes) -> None:
    with pytest.raises(ConversionFailed):
        ONNXRUNTIME.open(broken, dense().signature)
