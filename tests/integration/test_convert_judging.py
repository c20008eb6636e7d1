"""What a conversion minds when it judges: further outputs, company, doubts, undecided answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

import converters.judging.golden
from converters.convert import convert
from converters.data.samples import Inputs, Samples
from converters.judging.gate import Gate
from converters.source import Source
from converters.target import Work
from converters.targets import TARGETS
from fleet.protocol.errors import ConversionFailed, InvalidDataset
from fleet.protocol.manifest import Signature, Tensor
from tests.support.digits import digits_conversion, digits_source, training_and_held_out

NUMBERS = np.random.RandomState(0).normal(size=(600, 3)).astype(np.float32)


def _affine(weights: NDArray[Any], bias: NDArray[Any], *, further: bool = False) -> bytes:
    """Return a network of one product; with a further output that is the product before the bias."""
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["product"], name="MatMul_0"),
        onnx.helper.make_node("Add", ["product", "b"], ["y"], name="Add_0"),
    ]
    names = ["y", "product"] if further else ["y"]
    size = weights.shape[1]
    graph = onnx.helper.make_graph(
        nodes,
        "affine",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", len(weights)])],
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", size]) for n in names],
        [
            onnx.numpy_helper.from_array(weights.astype(np.float32), "w"),
            onnx.numpy_helper.from_array(bias.astype(np.float32), "b"),
        ],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def test_outputs_after_the_first_are_compared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "two.onnx"
    path.write_bytes(_affine(np.eye(3), np.ones(3), further=True))
    arguments: dict[str, Any] = {"targets": ["onnx-fp32"], "samples": Samples({"features": NUMBERS})}
    report = convert(path, task="regression", **arguments).report
    assert report.variant("onnx-fp32").packed, report.variant("onnx-fp32").reason

    def wrong(work: Work) -> bytes:
        """Swap bias and product between the outputs: the first stays right, the further one does not."""
        model = onnx.load_from_string(work.onnx)
        model.graph.node[0].output[0] = "hidden"
        model.graph.node[1].input[0] = "hidden"
        model.graph.node.append(onnx.helper.make_node("Neg", ["hidden"], ["product"]))
        return bytes(model.SerializeToString())

    monkeypatch.setitem(TARGETS, "onnx-fp32", replace(TARGETS["onnx-fp32"], build=wrong))
    refused = convert(path, task="regression", **arguments).report.variant("onnx-fp32")
    assert "'product' differs" in refused.reason


def test_a_model_that_answers_otherwise_in_company_is_refused() -> None:
    def in_company(inputs: Inputs) -> NDArray[Any]:
        (values,) = inputs.values()
        return np.asarray(values - values.mean(axis=0), dtype=np.float32)

    signature = Signature(
        (Tensor("x", "float32", (-1, 3)),), (Tensor("y", "float32", (-1, 3)),), task="regression"
    )
    source = Source("company", "ONNX", signature, in_company, onnx=_affine(np.eye(3), np.zeros(3)))
    with pytest.raises(ConversionFailed, match="alone"):
        convert(source, targets=["onnx-fp32"], samples=Samples({"features": NUMBERS}))
    silent = replace(source, answer=lambda inputs: np.full((len(inputs["x"]), 3), np.nan, dtype=np.float32))
    with pytest.raises(ConversionFailed, match="itself answers held-out sample 0"):
        convert(silent, targets=["onnx-fp32"], samples=Samples({"features": NUMBERS}))


def test_doubts_about_the_judgement_are_told() -> None:
    targets = NUMBERS[:, :1].copy()
    model = Ridge().fit(NUMBERS, targets)
    few = Samples({"features": NUMBERS[:40]})
    cautions = " ".join(convert(model, targets=["onnx-fp32"], samples=few).report.source.cautions)
    assert "20 samples were held out" in cautions
    assert "no targets" in cautions
    with pytest.raises(InvalidDataset, match="prove nothing"):
        convert(model, targets=["onnx-fp32"], samples=Samples({"features": NUMBERS[:6]}))
    _, held_out = training_and_held_out()
    shuffled = Samples({"features": held_out.features}, (held_out.labels + 1) % 10, held_out.classes)
    report = convert(digits_source(), targets=["onnx-fp32"], samples=shuffled, gate=Gate(1.0)).report
    assert any("by chance" in text for text in report.source.cautions)


def test_surer_golden_inputs_are_taken_where_undecided_ones_prove_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = digits_conversion(targets=["onnx-int8"]).report.variant("onnx-int8").golden_tolerance
    assert usual is not None
    monkeypatch.setattr(converters.judging.golden, "MAX_TOLERANCE", usual * 0.9)
    report = digits_conversion(targets=["onnx-int8"]).report
    surer = report.variant("onnx-int8")
    assert surer.packed, surer.reason
    assert surer.golden_tolerance is not None
    assert surer.golden_tolerance < usual
