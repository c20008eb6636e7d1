"""What a bundle claims is tested: true bundles pass, and each false claim is refused by itself."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest

from benchmarks.bundles import Build
from converters.bundles.bundle import Bundle
from converters.bundles.verify import verify
from converters.judging.golden import MAX_TOLERANCE
from fleet.drift.profile import FeatureReference, ReferenceProfile
from fleet.protocol.errors import InvalidManifest, SelfTestFailed
from fleet.protocol.manifest import Evaluation, Tensor, Variant
from fleet.protocol.requirement import RuntimeVersion
from tests.support.agent_bundles import (
    TFLITE_VARIANT,
    build_halving,
    build_tabular,
    build_word_score,
    pack,
)
from tests.support.networks import answers, convolutional
from tests.support.registrable import (
    ONNXRUNTIME,
    onnx_alone,
    small_bundle,
    with_file,
    with_manifest,
    with_variant,
)

BUNDLE = small_bundle()
SIGNATURE = BUNDLE.manifest.signature
ONNX, TFLITE = BUNDLE.manifest.variants


def test_every_variant_of_a_true_bundle_is_run_on_its_runtime() -> None:
    steps: list[tuple[str, int, int]] = []
    found = verify(BUNDLE, lambda *step: steps.append(step))
    assert [(each.name, each.runtime) for each in found] == [
        ("onnx-fp32", "onnxruntime"),
        ("tflite-fp32", "litert"),
    ]
    assert all(each.difference < 1e-5 for each in found)
    assert steps == [("onnx-fp32", 0, 2), ("tflite-fp32", 1, 2)]


@pytest.mark.parametrize("build", [build_tabular, build_word_score, build_halving])
def test_text_missing_numbers_and_every_shape_of_answer_are_run(build: Callable[[], Any]) -> None:
    (found,) = verify(onnx_alone(build()))
    assert found.difference < 1e-5


def test_a_model_of_one_size_of_batch_is_run_in_batches_of_that_size() -> None:
    (found,) = verify(_alone(small_bundle(batch=2)))
    assert found.difference < 1e-5


def _alone(bundle: Bundle) -> Bundle:
    return with_manifest(bundle, variants=bundle.manifest.variants[:1])


def _tolerance(value: float) -> Bundle:
    return with_variant(BUNDLE, lambda v: msgspec.structs.replace(v, golden_tolerance=value))


def _variant(**changes: Any) -> Bundle:
    return with_variant(BUNDLE, lambda v: msgspec.structs.replace(v, **changes))


def _requiring(name: str = ONNX.name, **changes: Any) -> Bundle:
    def change(variant: Variant) -> Variant:
        requirement = msgspec.structs.replace(variant.requirement, **changes)
        return msgspec.structs.replace(variant, requirement=requirement)

    return with_variant(BUNDLE, change, name)


def _signature(**changes: Any) -> Bundle:
    return with_manifest(BUNDLE, signature=msgspec.structs.replace(SIGNATURE, **changes))


def _input(**changes: Any) -> Bundle:
    return _signature(inputs=(msgspec.structs.replace(SIGNATURE.inputs[0], **changes),))


def _reference(*features: FeatureReference) -> Bundle:
    return with_manifest(BUNDLE, reference=ReferenceProfile(features))


def _provenance(**changes: Any) -> Bundle:
    return with_manifest(BUNDLE, provenance=msgspec.structs.replace(BUNDLE.manifest.provenance, **changes))


def _golden_input(values: np.ndarray[Any, np.dtype[np.float32]]) -> Bundle:
    return with_file(BUNDLE, BUNDLE.manifest.golden_inputs[0], values.astype("<f4").tobytes())


def _golden_output(data: bytes) -> Bundle:
    return with_file(BUNDLE, ONNX.golden_outputs, data)


MEAN = FeatureReference("input.mean", (0, 5, 5, 0), (0.0, 0.5, 1.0))


@pytest.mark.parametrize(
    "bundle",
    [
        pytest.param(_tolerance(MAX_TOLERANCE * 1.01), id="a tolerance that lets everything pass"),
        pytest.param(_tolerance(0.0), id="no tolerance"),
        pytest.param(_tolerance(-1.0), id="a negative tolerance"),
        pytest.param(_requiring(size_bytes=1), id="a wrong size"),
        pytest.param(_requiring(peak_memory_bytes=1), id="too little memory"),
        pytest.param(_requiring(runtimes=(RuntimeVersion("onnxruntime", "1.2"),)), id="too old a runtime"),
        pytest.param(_requiring(runtimes=(RuntimeVersion("tensorrt", "10.0"),)), id="an unknown runtime"),
        pytest.param(
            _requiring(runtimes=(ONNXRUNTIME, RuntimeVersion("litert", "2.0"))), id="runtimes of two formats"
        ),
        pytest.param(
            _requiring(TFLITE_VARIANT, runtimes=(RuntimeVersion("tflite-runtime", "2.1"),)),
            id="too old a tflite-runtime",
        ),
        pytest.param(_input(dtype="object"), id="a type that is a program"),
        pytest.param(_input(dtype="V1000000000"), id="a type of any size"),
        pytest.param(_input(shape=()), id="no batch"),
        pytest.param(_input(shape=(-1, 0)), id="no elements"),
        pytest.param(_input(shape=(-1, 2**70)), id="more elements than can be counted"),
        pytest.param(_input(shape=(-1, 5)), id="golden inputs of another shape"),
        pytest.param(_input(dtype="str"), id="golden inputs that are no text"),
        pytest.param(
            _signature(outputs=(*SIGNATURE.outputs, SIGNATURE.outputs[0])), id="two outputs of one name"
        ),
        pytest.param(with_manifest(BUNDLE, golden_count=7), id="another number of golden inputs"),
        pytest.param(_golden_input(np.full((8, 4), np.nan, np.float32)), id="missing golden inputs"),
        pytest.param(_golden_input(np.full((8, 4), np.inf, np.float32)), id="infinite golden inputs"),
        pytest.param(_golden_output(b""), id="no golden outputs"),
        pytest.param(_golden_output(b"\0" * 95), id="a part of the golden outputs"),
        pytest.param(_golden_output(np.full(24, np.nan, "<f4").tobytes()), id="golden outputs of NaN"),
        pytest.param(_reference(MEAN, MEAN), id="a feature twice"),
        pytest.param(_reference(FeatureReference("output.score", (0, 1, 0), (0.0, 1.0))), id="another task"),
        pytest.param(_reference(FeatureReference("luck", (0, 1, 0), (0.0, 1.0))), id="an unknown feature"),
        pytest.param(_reference(msgspec.structs.replace(MEAN, cells=(1, 2))), id="cells without edges"),
        pytest.param(_reference(msgspec.structs.replace(MEAN, axes=(0,))), id="samples as neighbours"),
        pytest.param(
            _reference(msgspec.structs.replace(MEAN, axes=(1, 2, 3))), id="neighbours in three axes"
        ),
        pytest.param(_reference(msgspec.structs.replace(MEAN, name="input.0 (\n)")), id="a name not to show"),
        pytest.param(_input(layout="NHW"), id="a layout of more sizes"),
        pytest.param(_input(layout="NQ"), id="an unknown layout"),
        pytest.param(_reference(msgspec.structs.replace(MEAN, cells=(0, -1, 5, 0))), id="a negative count"),
        pytest.param(_reference(msgspec.structs.replace(MEAN, cells=(0, 0, 0, 0))), id="counts of nothing"),
        pytest.param(_reference(msgspec.structs.replace(MEAN, edges=(0.5, 0.5, 1.0))), id="edges that fall"),
        pytest.param(_reference(msgspec.structs.replace(MEAN, edges=None)), id="numbers without edges"),
        pytest.param(
            _reference(msgspec.structs.replace(MEAN, offsets=(0, 9**5, 1, 0))), id="offsets too far"
        ),
        pytest.param(_reference(msgspec.structs.replace(MEAN, allowance=-1.0)), id="a negative allowance"),
        pytest.param(
            _reference(msgspec.structs.replace(MEAN, name="output.class")), id="categories with edges"
        ),
        pytest.param(_provenance(seed=2**64), id="a seed that no database holds"),
        pytest.param(_provenance(seed=-1), id="a negative seed"),
        pytest.param(_provenance(estimator="mlp\x1b[2J"), id="a text that clears the screen"),
        pytest.param(_provenance(hyperparameters={"a\nb": 1}), id="a name of two lines"),
        pytest.param(_signature(classes=("a", "b\x1b[2J", "c")), id="a class that clears the screen"),
        pytest.param(_input(columns=("a", "b", "c", "d\n")), id="a column of two lines"),
        pytest.param(_variant(precision="int8 or so"), id="an unknown precision"),
        pytest.param(_variant(evaluation=Evaluation("accuracy", 1.5, 100)), id="better than perfect"),
        pytest.param(_variant(evaluation=Evaluation("accuracy", 1.0, 0)), id="perfect on no samples"),
    ],
)
def test_a_false_claim_is_refused(bundle: Bundle) -> None:
    with pytest.raises(InvalidManifest):
        verify(bundle)


def _model(data: bytes, variant: Variant) -> Bundle:
    changed = with_file(BUNDLE, variant.model_file, data)

    def sized(each: Variant) -> Variant:
        requirement = msgspec.structs.replace(each.requirement, size_bytes=len(data))
        return msgspec.structs.replace(each, requirement=requirement)

    return with_variant(changed, sized, variant.name)


def _bytes_of(variant: Variant) -> bytes:
    return BUNDLE.blobs[variant.model_file.sha256]


@pytest.mark.parametrize(
    "bundle",
    [
        pytest.param(small_bundle(golden_error=0.01), id="other golden outputs"),
        pytest.param(_golden_output(np.full(32, 0.25, "<f4").tobytes()), id="outputs of another shape"),
        pytest.param(_signature(classes=("a", "b")), id="fewer classes than answers"),
        pytest.param(_signature(classes=tuple("abcd")), id="more classes than answers"),
        pytest.param(_signature(task="anomaly", classes=()), id="three scores for one sample"),
        pytest.param(
            _signature(outputs=(Tensor("other", "float32", (-1, 3)),)), id="an output that the model has not"
        ),
        pytest.param(
            _signature(outputs=(*SIGNATURE.outputs, Tensor("other", "float32", (-1, 3)))),
            id="a second output that the model has not",
        ),
        pytest.param(_input(name="other"), id="an input that the model has not"),
        pytest.param(_model(b"", ONNX), id="an empty model"),
        pytest.param(_model(b"nonsense" * 10, ONNX), id="no ONNX"),
        pytest.param(_model(_bytes_of(ONNX)[:-20], ONNX), id="a part of an ONNX file"),
        pytest.param(_model(_bytes_of(TFLITE), ONNX), id="TFLite in place of ONNX"),
        pytest.param(_model(b"\x08\0\0\0ORTM" + b"\xff" * 200, ONNX), id="no ORT file"),
        pytest.param(_model(b"nonsense" * 10, TFLITE), id="no TFLite"),
        pytest.param(_model(_bytes_of(TFLITE)[:-20], TFLITE), id="a part of a TFLite file"),
        pytest.param(_model(_bytes_of(ONNX), TFLITE), id="ONNX in place of TFLite"),
    ],
)
def test_a_model_that_does_not_do_what_is_claimed_is_refused(bundle: Bundle) -> None:
    unprofiled = with_manifest(bundle, reference=ReferenceProfile(()))
    with pytest.raises(SelfTestFailed, match="ariant"):
        verify(unprofiled)


def _convolution(model: bytes, file_name: str) -> Bundle:
    """Return a bundle of the network of `convolutional` in some form."""
    work = convolutional()
    golden = {name: values[:4] for name, values in work.samples().items()}
    built = Build("plain", file_name, model)
    bundle = onnx_alone(pack("images", 1, work.signature, golden, answers(work.onnx, work, golden), built))

    def ample(variant: Variant) -> Variant:
        requirement = msgspec.structs.replace(variant.requirement, peak_memory_bytes=2**30)
        return msgspec.structs.replace(variant, requirement=requirement, golden_tolerance=1e-3)

    return with_variant(bundle, ample, "plain")


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="only x86 has the layout nchwc")
@pytest.mark.parametrize("name", ["model.onnx", "model.ort"])
def test_a_graph_for_the_processor_that_optimized_it_is_refused(name: str, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tmp_path / name)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(convolutional().onnx, options, providers=["CPUExecutionProvider"])
    with pytest.raises(InvalidManifest, match=r"nchwc\.Conv"):
        verify(_convolution((tmp_path / name).read_bytes(), name))


def test_a_file_named_for_the_other_format_is_refused() -> None:
    verify(_convolution(convolutional().onnx, "model.onnx"))
    with pytest.raises(InvalidManifest, match=r"model\.ort"):
        verify(_convolution(convolutional().onnx, "model.ort"))


def test_a_model_that_answers_with_nan_is_refused() -> None:
    bundle = small_bundle(negative_gives_nan=True)
    (file,) = bundle.manifest.golden_inputs
    with pytest.raises(SelfTestFailed, match="not finite"):
        verify(_alone(with_file(bundle, file, np.full((8, 4), -1.0, "<f4").tobytes())))
