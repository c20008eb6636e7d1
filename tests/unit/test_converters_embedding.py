"""The embedding head: which tensor, which projection, in which variants, and what of it can be trusted."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from converters.bundles.verify import verify
from converters.convert import Conversion, convert
from converters.data.samples import Samples, checked_samples
from converters.embedding import (
    DEFAULT_COMPONENTS,
    EMBEDDING,
    principal_components,
    read_wanted,
    with_embedding,
)
from converters.judging.embedding import check_embedding
from converters.judging.gate import Gate
from converters.source import Source
from converters.sources import open_source
from converters.targets import TARGETS
from fleet.drift.alarms import AlarmState, judge_drift
from fleet.drift.features import OUTPUT_CONFIDENCE, count_block
from fleet.drift.inputs import INPUT_CONTRAST, INPUT_ENERGY, INPUT_MEAN, INPUT_SHARPNESS
from fleet.protocol.errors import ConversionFailed, InvalidInput, InvalidManifest, SelfTestFailed
from fleet.protocol.manifest import Tensor, decode_manifest, encode_manifest
from tests.support.digits import digits_conversion, digits_source, field_part, training_and_held_out
from tests.support.onnx_models import cnn, saved
from tests.support.registrable import with_manifest

RANDOM = np.random.default_rng(3)
NAMES = [f"embedding.{number}" for number in range(DEFAULT_COMPONENTS)]
SIMPLE = (INPUT_MEAN, INPUT_CONTRAST, INPUT_ENERGY, INPUT_SHARPNESS)


@cache
def converted(embedding: str = "auto") -> Conversion:
    """Return the digits' model for every runtime, with a head."""
    return digits_conversion(targets=None, embedding=embedding, layout="NHW")


def run(conversion: Conversion, variant: str, inputs: Any) -> list[NDArray[Any]]:
    """Return answers and embedding of a variant on its runtime."""
    assert conversion.bundle is not None
    signature = conversion.bundle.manifest.signature
    runtime, model = TARGETS[variant].runtime, conversion.models[variant]
    sessions = [
        runtime.open(model, msgspec.structs.replace(signature, outputs=(tensor,)))
        for tensor in signature.computed
    ]
    return [session.run(inputs) for session in sessions]


def test_components_are_the_principal_ones_with_mean_0_and_deviation_1() -> None:
    values = RANDOM.normal(size=(500, 3)) @ np.diag([5.0, 1.0, 0.5]) @ RANDOM.normal(size=(3, 6)) + 40.0
    weights, bias = principal_components(values, 2)
    found = values @ weights + bias
    assert found.mean(axis=0) == pytest.approx([0.0, 0.0], abs=1e-4)
    assert found.std(axis=0, ddof=1) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert float(found[:, 0] @ found[:, 1]) / 500 == pytest.approx(0.0, abs=1e-4)
    # of all directions, the first is that with the greatest spread
    direction = weights[:, 0] / np.linalg.norm(weights[:, 0])
    others = RANDOM.normal(size=(6, 200))
    spreads = (values @ (others / np.linalg.norm(others, axis=0))).std(axis=0)
    assert spreads.max() <= (values @ direction).std() + 1e-6


def test_directions_in_which_little_happens_are_left_out() -> None:
    values = np.outer(RANDOM.normal(size=100), np.ones(5)) + RANDOM.normal(size=(100, 5)) * 1e-4
    weights, bias = principal_components(values, 4)
    assert (weights.shape, bias.shape) == ((5, 1), (1,))
    with pytest.raises(ConversionFailed, match="the same for all"):
        principal_components(np.full((20, 5), 3.0), 4)


def test_every_variant_has_the_head_and_answers_as_without_it() -> None:
    with_head, without = converted(), converted("")
    assert with_head.bundle is not None
    assert without.bundle is not None
    signature = without.bundle.manifest.signature
    inputs = {"input": field_part().features}
    for report in with_head.report.variants:
        answers, embedding = run(with_head, report.name, inputs)
        assert report.packed
        assert embedding.shape == (len(answers), DEFAULT_COMPONENTS)
        assert report.embedding_difference is not None
        assert report.embedding_difference <= (1e-3 if report.precision == "fp32" else 0.1)
        session = TARGETS[report.name].runtime.open(without.models[report.name], signature)
        assert np.array_equal(answers, session.run(inputs)), report.name
    signature = with_head.bundle.manifest.signature
    assert [tensor.name for tensor in signature.outputs] == ["probabilities"]
    assert signature.embedding == Tensor(EMBEDDING, "float32", (-1, DEFAULT_COMPONENTS))
    names = [feature.name for feature in with_head.bundle.manifest.reference.features]
    assert names[-DEFAULT_COMPONENTS:] == NAMES
    assert len(verify(with_head.bundle)) == len(TARGETS)


@pytest.mark.parametrize("variant", ["onnx-int8", "onnx-int4"])
def test_the_head_stays_float(variant: str) -> None:
    graph = onnx.load_from_string(converted().models[variant]).graph
    (head,) = [node for node in graph.node if node.name == EMBEDDING]
    weights = next(tensor for tensor in graph.initializer if tensor.name == head.input[1])
    assert (head.op_type, weights.data_type) in {
        ("Gemm", onnx.TensorProto.FLOAT),
        ("MatMul", onnx.TensorProto.FLOAT),
    }


def test_images_on_their_side_drift_in_the_embedding_and_in_no_statistic_of_the_input() -> None:
    conversion = digits_conversion(targets=["onnx-fp32"], embedding="auto", layout="NHW")
    assert conversion.bundle is not None
    reference = conversion.bundle.manifest.reference
    upright = field_part().features
    turned = np.ascontiguousarray(np.concatenate([upright[:-120], np.rot90(upright[-120:], 1, (1, 2))]))

    def evidence(images: NDArray[Any]) -> dict[str, tuple[float, bool]]:
        answers, embedding = run(conversion, "onnx-fp32", {"input": images})
        judged = judge_drift(reference, count_block(reference, images, answers, embedding), AlarmState())
        return {each.feature: (each.look_evidence, each.drifted) for each in judged}

    assert not any(drifted for _, drifted in evidence(upright).values())
    found = evidence(turned)
    assert found["embedding.0"][1]
    assert found["embedding.0"][0] > 10
    for name in (*SIMPLE, OUTPUT_CONFIDENCE):
        assert found[name][0] < 0, name


@pytest.mark.parametrize(("tensor", "width"), [("active", 4), ("image", 3)])
def test_any_layer_of_a_network_can_be_watched(tmp_path: Path, tensor: str, width: int) -> None:
    source = open_source(saved(tmp_path / "cnn.onnx", cnn()), task="classification")
    conversion = convert(
        source,
        targets=("onnx-fp32", "onnx-int8", "tflite-int8"),
        samples=images(200),
        gate=Gate(maximum_drop=0.2),
        embedding=f"{tensor}:2",
    )
    assert [each.reason for each in conversion.report.variants] == [""] * 3
    given = images(50, seed=9).arrays["features"]
    exact = run(conversion, "onnx-fp32", {"image": given})[1]
    for variant in conversion.models:
        check_embedding(run(conversion, variant, {"image": given})[1], exact, TARGETS[variant].precision)
    graph = onnx.load_from_string(conversion.models["onnx-fp32"]).graph
    weights = next(each for each in graph.initializer if each.name == f"{EMBEDDING}.1")
    assert tuple(weights.dims) == (width, 2)
    if tensor == "image":
        averages = given.mean(axis=(2, 3))
        bias = next(each for each in graph.initializer if each.name == f"{EMBEDDING}.2")
        projected = averages @ onnx.numpy_helper.to_array(weights) + onnx.numpy_helper.to_array(bias)
        assert exact == pytest.approx(projected, abs=1e-4)


def images(count: int, seed: int = 0) -> Samples:
    """Return images of which each channel has a brightness of its own."""
    random = np.random.RandomState(seed)
    brightness = random.standard_normal((count, 3, 1, 1))
    return checked_samples({"features": brightness + random.standard_normal((count, 3, 8, 8)) / 2})


@pytest.mark.parametrize(
    ("text", "tensor", "components"),
    [
        ("logits", "logits", DEFAULT_COMPONENTS),
        ("logits:7", "logits", 7),
        ("auto", "flat", DEFAULT_COMPONENTS),
        ("auto:1", "flat", 1),
        ("image:2", "image", 2),
        ("active:0:3", "active:0", 3),
        ("active:0", "active:0", DEFAULT_COMPONENTS),
    ],
)
def test_a_tensor_is_named_with_or_without_a_number_of_components(
    text: str, tensor: str, components: int
) -> None:
    model = cnn()
    model.graph.node.append(onnx.helper.make_node("Relu", ["features"], ["active:0"]))
    assert read_wanted(text, model, "probabilities") == (tensor, components)


@pytest.mark.parametrize("text", ["", "logit", "logits:9", "logits:0", "kernel", "logits:", ":3", "auto:x"])
def test_what_is_no_tensor_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_wanted(text, cnn(), "probabilities")
    assert "logits" in refused.value.remedy


def test_a_model_without_a_product_has_no_penultimate_layer() -> None:
    model = cnn()
    del model.graph.node[4:]
    del model.graph.node[0]
    with pytest.raises(InvalidInput, match="no product"):
        read_wanted("auto", model, "flat")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"samples": None}, "calibration samples"),
        ({"samples": None, "held_out": None, "gate": Gate()}, "calibration samples"),
        ({"embedding": "nothing"}, "no tensor"),
        ({"source": "tflite"}, "as it is"),
    ],
)
def test_where_there_can_be_none_it_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    arguments = {"embedding": "auto", **changes}
    source: Source | None = None
    if arguments.pop("source", ""):
        path = tmp_path / "digits.tflite"
        path.write_bytes(converted("").models["tflite-fp32"])
        source = open_source(path, task="classification")
        arguments["targets"] = None
    with pytest.raises(InvalidInput, match=why):
        digits_conversion(source, **arguments)


def test_a_tensor_of_another_shape_or_type_is_refused() -> None:
    calibration = {"input": training_and_held_out()[0].features}
    source = digits_source()
    with pytest.raises(InvalidInput, match=r"\(900, 8, 8\)"):  # time or channels: it cannot be told
        with_embedding(source, "input", calibration)
    assert source.signature.embedding is msgspec.UNSET


def test_an_embedding_that_is_too_far_from_the_fp32_model_is_refused() -> None:
    exact = RANDOM.normal(size=(100, 3))
    assert check_embedding(exact, exact, "fp32") == 0.0
    off = exact + np.array([0.0, 0.0, 0.09])
    assert check_embedding(off, exact, "int8") == pytest.approx(0.09)
    for given, precision in (
        (off, "fp32"),
        (exact * 1.2, "int8"),
        (exact[:, :2], "int8"),
        (exact * np.nan, "int8"),
    ):
        with pytest.raises(ConversionFailed):
            check_embedding(given, exact, precision)


def test_the_same_conversion_gives_the_same_bytes() -> None:
    again = digits_conversion(targets=["onnx-int8"], embedding="auto", layout="NHW")
    assert again.models["onnx-int8"] == converted().models["onnx-int8"]


def test_a_bundle_that_promises_another_embedding_is_refused() -> None:
    bundle = converted().bundle
    assert bundle is not None
    signature = bundle.manifest.signature
    reference = bundle.manifest.reference

    def claiming(embedding: Any) -> Any:
        return with_manifest(bundle, signature=msgspec.structs.replace(signature, embedding=embedding))

    with pytest.raises(SelfTestFailed, match="shape"):
        verify(claiming(Tensor(EMBEDDING, "float32", (-1, 8))))
    with pytest.raises(SelfTestFailed, match="no output"):
        verify(claiming(Tensor("other", "float32", (-1, 4))))
    for embedding in (
        msgspec.UNSET,
        Tensor(EMBEDDING, "float32", (-1, 3)),
        Tensor(EMBEDDING, "float32", (-1, 9)),
        Tensor(EMBEDDING, "float32", (-1, 2, 2)),
        Tensor(EMBEDDING, "int64", (-1, 4)),
        Tensor("probabilities", "float32", (-1, 4)),
    ):
        changed = msgspec.structs.replace(signature, embedding=embedding)
        data = encode_manifest(msgspec.structs.replace(bundle.manifest, signature=changed))
        with pytest.raises(InvalidManifest):
            decode_manifest(data)
    assert decode_manifest(encode_manifest(bundle.manifest)).reference == reference
