"""Sources from ``.onnx`` files of any producer: form, answers, outputs, task and precision."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from converters.graphs.versions import opset_of
from converters.source import Source
from converters.sources.onnx_file import open_onnx
from fleet.protocol.errors import InvalidModel
from fleet.protocol.manifest import Tensor
from tests.support.onnx_models import cnn, model, saved, single, value


def _answers(graph: bytes, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def _images(count: int) -> NDArray[np.float32]:
    return np.random.RandomState(1).standard_normal((count, 3, 8, 8)).astype(np.float32)


def _graph(source: Source) -> onnx.ModelProto:
    assert source.onnx is not None
    return onnx.load_model_from_string(source.onnx)


@pytest.mark.parametrize(
    ("opset", "ir_version", "becomes"),
    [
        (9, 4, 17),
        (11, 6, 17),
        (13, 7, 17),
        (17, 8, 17),
        (18, 8, 18),
        (21, 10, 21),
        (23, 10, 21),
        (26, 13, 21),
    ],
)
def test_every_operator_set_is_brought_to_one_that_devices_run(
    tmp_path: Path, opset: int, ir_version: int, becomes: int
) -> None:
    graph = cnn(opset=opset, ir_version=ir_version)
    source = open_onnx(saved(tmp_path / "m.onnx", graph))
    found = _graph(source)
    assert (opset_of(found), found.ir_version) == (becomes, 8)
    expected = _answers(graph.SerializeToString(), {"image": _images(5)})
    assert source.onnx is not None
    np.testing.assert_allclose(_answers(source.onnx, {"image": _images(5)}), expected, atol=1e-6)
    np.testing.assert_array_equal(source.answer({"image": _images(5)}), expected)
    assert any(f"operator set {opset} was converted" in caution for caution in source.cautions) == (
        becomes != opset
    )


@pytest.mark.parametrize(
    ("batch", "reshape"), [(1, None), (1, (1, -1)), (1, (1, 100)), (8, (8, -1)), ("n", (1, 100))]
)
def test_a_fixed_batch_is_opened_and_answers_the_same(
    tmp_path: Path, batch: int | str, reshape: tuple[int, ...] | None
) -> None:
    source = open_onnx(saved(tmp_path / "m.onnx", cnn(batch=batch, reshape=reshape)))
    expected = _answers(cnn().SerializeToString(), {"image": _images(11)})
    assert source.onnx is not None
    np.testing.assert_allclose(_answers(source.onnx, {"image": _images(11)}), expected, atol=1e-6)
    if batch != "n":
        np.testing.assert_allclose(source.answer({"image": _images(11)}), expected, atol=1e-6)
    assert source.signature.inputs == (Tensor("image", "float32", (-1, 3, 8, 8)),)
    assert source.signature.outputs == (Tensor("probabilities", "float32", (-1, 10)),)


def test_samples_that_influence_each_other_are_refused(tmp_path: Path) -> None:
    mixing = single("Softmax", axis=0)
    with pytest.raises(InvalidModel, match=r"output 'y'.*one after the other"):
        open_onnx(saved(tmp_path / "m.onnx", mixing))


def test_the_same_file_gives_the_same_bytes_without_traces_of_its_making(tmp_path: Path) -> None:
    graph = cnn()
    graph.producer_name, graph.doc_string = "some exporter", "written in a secret place"
    graph.graph.node[0].doc_string = "a line of somebody's code"
    graph.metadata_props.add(key="where", value="a secret place")
    first, second = (open_onnx(saved(tmp_path / name, graph)) for name in ("a.onnx", "b.onnx"))
    assert first.onnx == second.onnx
    assert first.sha256 == second.sha256
    assert first.onnx is not None
    assert not any(text in first.onnx for text in (b"secret", b"somebody", b"exporter"))
    assert [node.name for node in _graph(first).graph.node] == [
        "conv", "relu", "pool", "flatten", "dense", "softmax"
    ]  # fmt: skip


def test_nodes_without_names_get_names_of_their_own(tmp_path: Path) -> None:
    graph = cnn()
    for node in graph.graph.node:
        node.name = "Relu_1" if node.op_type == "Conv" else ""
    names = [node.name for node in _graph(open_onnx(saved(tmp_path / "m.onnx", graph))).graph.node]
    assert len(set(names)) == len(names)
    assert all(names)


def test_functions_are_written_out(tmp_path: Path) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Neg", ["b"], ["c"])]
    function = helper.make_function("mine", "NegRelu", ["a"], ["c"], body, [helper.make_opsetid("", 17)])
    graph = model(
        [helper.make_node("NegRelu", ["x"], ["y"], domain="mine")],
        [value("x", ["n", 4])], [value("y", ["n", 4])], domains={"mine": 1}, functions=[function],
    )  # fmt: skip
    source = open_onnx(saved(tmp_path / "m.onnx", graph), task="regression")
    assert [node.op_type for node in _graph(source).graph.node] == ["Relu", "Neg"]
    given = np.array([[-1, 2, -3, 4]], dtype=np.float32)
    np.testing.assert_array_equal(source.answer({"x": given}), [[0, -2, 0, -4]])


def test_control_flow_is_kept(tmp_path: Path) -> None:
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(operator, ["x"], [name], name=name)], name, [], [value(name, ["n", 4])]
        )
        for name, operator in (("then", "Relu"), ("else", "Neg"))
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["chosen"], **branches),
        helper.make_node("Sub", ["chosen", "chosen"], ["y"]),
    ]
    graph = model(
        nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], {"zero": np.array(0, dtype=np.float32)}
    )
    source = open_onnx(saved(tmp_path / "m.onnx", graph), task="regression")
    assert [node.op_type for node in _graph(source).graph.node] == ["ReduceSum", "Greater", "If", "Sub"]


def _exported(estimator: Any, options: dict[str, Any] | None = None) -> tuple[bytes, NDArray[np.float32]]:
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris

    features, labels = load_iris(return_X_y=True)
    features = features.astype(np.float32)
    estimator.fit(features, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # skl2onnx's own use of what onnx is about to remove
        exported = to_onnx(estimator, features[:1], options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    return exported.SerializeToString(), features


def test_zipmap_and_label_of_scikit_learn_are_dropped(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    data, features = _exported(LogisticRegression(max_iter=500))
    (tmp_path / "m.onnx").write_bytes(data)
    source = open_onnx(tmp_path / "m.onnx")
    assert source.signature.task == "classification"
    assert source.signature.classes == ("0", "1", "2")
    assert [tensor.shape for tensor in source.signature.outputs] == [(-1, 3)]
    caution = source.cautions[0]
    assert "'output_label' (int64)" in caution
    assert "ZipMap" in caution
    expected = (
        LogisticRegression(max_iter=500).fit(features, np.repeat([0, 1, 2], 50)).predict_proba(features)
    )
    np.testing.assert_allclose(source.answer({"X": features}), expected, atol=1e-4)
    assert "ZipMap" not in {node.op_type for node in _graph(source).graph.node}


def test_a_score_of_strangeness_is_a_regression_until_told(tmp_path: Path) -> None:
    from sklearn.ensemble import IsolationForest

    data, _ = _exported(IsolationForest(n_estimators=3, random_state=0))
    (tmp_path / "m.onnx").write_bytes(data)
    guessed = open_onnx(tmp_path / "m.onnx")
    assert guessed.signature.task == "regression"
    assert "--task" in guessed.cautions[-1]
    told = open_onnx(tmp_path / "m.onnx", task="anomaly")
    assert told.signature.task == "anomaly"
    assert not any("--task" in caution for caution in told.cautions)


def test_the_first_output_of_floats_is_judged(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node("Relu", ["x"], ["scores"]),
        helper.make_node("Neg", ["x"], ["others"]),
    ]
    graph = model(
        nodes,
        [value("x", ["n", 4])],
        [value("label", ["n"], TensorProto.INT64), value("scores", ["n", 4]), value("others", ["n", 4])],
    )
    source = open_onnx(saved(tmp_path / "m.onnx", graph), task="regression")
    assert [tensor.name for tensor in source.signature.outputs] == ["scores", "others"]
    assert [node.op_type for node in _graph(source).graph.node] == ["Relu", "Neg"]
    assert any("only the first, 'scores'" in caution for caution in source.cautions)


@pytest.mark.parametrize(
    ("graph", "classes", "task"),
    [
        (single("Relu"), (), "reconstruction"),
        (single("Relu"), ("a", "b", "c", "d"), "classification"),
        (single("Softmax", axis=1), (), "classification"),
        (single("ReduceMean", axes=[1], out=("n", 1)), (), "regression"),
        (single("Flatten", shape=("n", 2, 2)), (), "regression"),
        (single("Relu", shape=("n", 1), out=("n", 1)), (), "regression"),
    ],
)
def test_the_task_is_guessed_from_what_can_be_seen(
    tmp_path: Path, graph: onnx.ModelProto, classes: tuple[str, ...], task: str
) -> None:
    source = open_onnx(saved(tmp_path / "m.onnx", graph), classes=classes)
    assert source.signature.task == task
    assert source.signature.classes == classes
    assert "The task was not given" in source.cautions[-1]


@pytest.mark.parametrize(
    ("task", "classes", "told"),
    [
        ("anomaly", (), r"one score, \(N, 1\)"),
        ("classification", ("a", "b"), "4 numbers for each sample; 2 classes are named"),
    ],
)
def test_a_task_that_the_output_does_not_suit_is_refused(
    tmp_path: Path, task: Any, classes: tuple[str, ...], told: str
) -> None:
    with pytest.raises(InvalidModel, match=told):
        open_onnx(saved(tmp_path / "m.onnx", single("Relu")), task=task, classes=classes)


def test_text_and_numbers_are_inputs(tmp_path: Path) -> None:
    encoder = helper.make_node(
        "OneHotEncoder", ["colour"], ["hot"], domain="ai.onnx.ml", cats_strings=["red", "green"], zeros=1
    )
    nodes = [encoder, helper.make_node("ReduceSum", ["hot", "axis"], ["y"], keepdims=0)]
    graph = model(
        nodes, [value("colour", ["n", 1], TensorProto.STRING)], [value("y", ["n", 2])],
        {"axis": np.array([1])}, domains={"ai.onnx.ml": 3},
    )  # fmt: skip
    source = open_onnx(saved(tmp_path / "m.onnx", graph), task="regression")
    assert source.signature.inputs == (Tensor("colour", "str", (-1, 1)),)
    given = np.array([["green"], ["red"], ["blue"]], dtype=object)
    np.testing.assert_array_equal(source.answer({"colour": given}), [[0, 1], [1, 0], [0, 0]])


def test_initializers_among_the_inputs_are_constants(tmp_path: Path) -> None:
    graph = cnn(ir_version=3)
    for tensor in graph.graph.initializer:
        graph.graph.input.append(value(tensor.name, list(tensor.dims)))
    source = open_onnx(saved(tmp_path / "m.onnx", graph))
    assert [tensor.name for tensor in source.signature.inputs] == ["image"]


def _quantized(kind: str) -> onnx.ModelProto:
    constants: dict[str, NDArray[Any]]
    if kind == "fp16":
        constants = {"w": np.ones((4, 4), dtype=np.float16)}
        nodes = [
            helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
            helper.make_node("MatMul", ["half", "w"], ["product"]),
            helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
        ]
        return model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], constants)
    if kind == "int8":
        constants = {"scale": np.array(0.1, dtype=np.float32), "zero": np.array(0, dtype=np.int8)}
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ]
        return model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], constants)
    constants = {"packed": np.full((8, 1, 8), 0x99, dtype=np.uint8), "scales": np.ones(8, dtype=np.float32)}
    sizes: dict[str, Any] = {"K": 16, "N": 8, "bits": 4, "block_size": 16}
    node = helper.make_node("MatMulNBits", ["x", "packed", "scales"], ["y"], domain="com.microsoft", **sizes)
    domains = {"com.microsoft": 1}
    return model([node], [value("x", ["n", 16])], [value("y", ["n", 8])], constants, domains=domains)


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_the_precision_of_graphs_that_are_quantized_already(tmp_path: Path, precision: str) -> None:
    source = open_onnx(saved(tmp_path / "m.onnx", _quantized(precision)), task="regression")
    assert source.precision == precision
    assert open_onnx(saved(tmp_path / "f.onnx", cnn())).precision == "fp32"


def test_weights_in_another_file_become_part_of_the_model(tmp_path: Path) -> None:
    inside = open_onnx(saved(tmp_path / "inside.onnx", cnn()))
    (tmp_path / "weights").mkdir()
    onnx.save_model(
        cnn(),
        str(tmp_path / "outside.onnx"),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    outside = open_onnx(tmp_path / "outside.onnx")
    assert outside.onnx == inside.onnx
    before = outside.sha256
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert open_onnx(tmp_path / "outside.onnx").sha256 != before  # the digest covers the data file


def test_constants_inside_nodes_may_be_outside_too(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.arange(16, dtype=np.float32).reshape(4, 4), "w")
    graph = model(
        [
            helper.make_node("Constant", [], ["w"], value=weights),
            helper.make_node("MatMul", ["x", "w"], ["y"]),
        ],
        [value("x", ["n", 4])],
        [value("y", ["n", 4])],
    )
    inside = open_onnx(saved(tmp_path / "inside.onnx", graph), task="regression")
    onnx.save_model(
        graph, str(tmp_path / "outside.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0,
        convert_attribute=True,
    )  # fmt: skip
    assert (tmp_path / "w.bin").stat().st_size == 64
    assert open_onnx(tmp_path / "outside.onnx", task="regression").onnx == inside.onnx
