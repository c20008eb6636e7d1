"""Gate, golden inputs, bundle and folder: what is packed, and that it is what the manifest says."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import converters.golden
from converters.bundle import BUILD_STEPS, Build, build_bundle
from converters.dataset import Dataset, split_stratified
from converters.evaluate import answer, evaluate
from converters.folder import read_bundle, write_bundle
from converters.gate import AccuracyGate
from converters.golden import choose_golden_inputs, expected_outputs
from converters.quantize import quantize_int8
from converters.sklearn_source import export_pipeline
from fleet.drift.features import build_reference
from fleet.protocol.errors import (
    AccuracyTooLow,
    Conflict,
    ConversionFailed,
    DigestMismatch,
    InvalidManifest,
    NotFound,
    StorageError,
)
from fleet.protocol.manifest import Evaluation, Provenance, choose_variant, decode_manifest
from hub.training.estimators import check_hyperparameters, fitted_pipeline
from tests.support.digits import CLASSES, registered_part

PASS_ALL = AccuracyGate(minimum_accuracy=0.0, maximum_drop=1.0)
PROVENANCE = Provenance("digits", "0" * 64, "mlp", {"hidden": 64}, 3, {"numpy": np.__version__})


@cache
def _parts() -> tuple[Dataset, Dataset]:
    split = split_stratified(registered_part(), share=0.25, seed=0)
    return split.rest, split.part


@cache
def _model(seed: int = 0) -> bytes:
    training, _ = _parts()
    pipeline = fitted_pipeline("mlp", check_hyperparameters("mlp", {}), training, seed)
    return export_pipeline(pipeline, training.sample_shape, 10)


def _build(gate: AccuracyGate = PASS_ALL, **changes: Any) -> Build:
    training, held_out = _parts()
    arguments: dict[str, Any] = {
        "model": "digits",
        "version": 2,
        "held_out": held_out,
        "calibration": training.features,
        "gate": gate,
        "provenance": PROVENANCE,
    }
    return build_bundle(_model(), **{**arguments, **changes})


def test_the_bundle_holds_what_the_manifest_names() -> None:
    bundle = _build().bundle
    assert decode_manifest(bundle.manifest_bytes) == bundle.manifest
    assert bundle.sha256 == hashlib.sha256(bundle.manifest_bytes).hexdigest()
    files = {f for variant in bundle.manifest.variants for f in bundle.manifest.files(variant)}
    assert {file.sha256: file.size_bytes for file in files} == {k: len(v) for k, v in bundle.blobs.items()}
    for sha256, data in bundle.blobs.items():
        assert hashlib.sha256(data).hexdigest() == sha256


def test_the_smaller_variant_is_preferred_and_both_are_evaluated() -> None:
    build = _build()
    manifest = build.bundle.manifest
    assert [variant.name for variant in manifest.variants] == ["onnx-int8", "onnx-fp32"]
    assert [variant.precision for variant in manifest.variants] == ["int8", "fp32"]
    assert choose_variant(manifest, {"onnxruntime": ort.__version__}).name == "onnx-int8"
    _, held_out = _parts()
    for variant in manifest.variants:
        answers = answer(build.bundle.blobs[variant.model_file.sha256], held_out.features)
        assert variant.evaluation == evaluate(answers, held_out)
        assert variant.evaluation.samples == len(held_out)
        assert variant.evaluation.accuracy > 0.94
    assert [report.name for report in build.variants] == ["onnx-fp32", "onnx-int8"]
    assert all(report.packed and not report.reason for report in build.variants)


def test_signature_profile_and_provenance_are_those_of_the_model() -> None:
    bundle = _build().bundle
    manifest = bundle.manifest
    assert manifest.signature.classes == CLASSES
    assert [(t.name, t.dtype, t.shape) for t in manifest.signature.inputs] == [
        ("input", "float32", (-1, 8, 8))
    ]
    assert [t.shape for t in manifest.signature.outputs] == [(-1, 10)]
    assert manifest.provenance == PROVENANCE
    _, held_out = _parts()
    preferred = bundle.blobs[manifest.variants[0].model_file.sha256]
    assert manifest.reference == build_reference(held_out.features, answer(preferred, held_out.features))
    assert all(sum(f.cells) == len(held_out) for f in manifest.reference.features)


def test_every_variant_passes_its_self_test_as_a_device_runs_it() -> None:
    bundle = _build().bundle
    manifest = bundle.manifest
    shape = (manifest.golden_count, *manifest.signature.inputs[0].shape[1:])
    inputs = np.frombuffer(bundle.blobs[manifest.golden_inputs.sha256], "<f4").reshape(shape)
    for variant in manifest.variants:
        expected = np.frombuffer(bundle.blobs[variant.golden_outputs.sha256], "<f4").reshape(len(inputs), -1)
        session = ort.InferenceSession(bundle.blobs[variant.model_file.sha256])
        one_by_one = np.concatenate([session.run(None, {"input": one[None]})[0] for one in inputs])
        assert np.abs(one_by_one - expected).max() <= variant.golden_tolerance


def test_the_same_inputs_give_the_same_bytes() -> None:
    first, second = _build().bundle, _build().bundle
    assert first.manifest_bytes == second.manifest_bytes
    assert first.blobs == second.blobs


def test_steps_are_reported_in_order() -> None:
    steps: list[str] = []
    _build(on_step=steps.append)
    assert tuple(steps) == BUILD_STEPS


@pytest.mark.parametrize(("model", "version"), [("../etc", 1), ("digits", 0), ("", 1)])
def test_unusable_names_and_versions_are_refused(model: str, version: int) -> None:
    with pytest.raises(InvalidManifest):
        _build(model=model, version=version)


def test_a_model_below_the_demanded_accuracy_is_not_bundled() -> None:
    with pytest.raises(AccuracyTooLow, match=r"99\.90% are demanded"):
        _build(AccuracyGate(minimum_accuracy=0.999, maximum_drop=1.0))


def _calibrated_on_nothing() -> Build:
    """Calibrate on blank images: every activation of a real image saturates."""
    training, _ = _parts()
    blank = np.zeros_like(training.features)
    return _build(AccuracyGate(minimum_accuracy=0.8, maximum_drop=0.02), calibration=blank)


def test_an_int8_variant_that_loses_too_much_is_left_out_and_the_report_says_why() -> None:
    build = _calibrated_on_nothing()
    assert [variant.name for variant in build.bundle.manifest.variants] == ["onnx-fp32"]
    fp32, int8 = build.variants
    assert fp32.packed
    assert not int8.packed
    assert "Accuracy falls by" in int8.reason
    assert int8.evaluation is not None
    assert int8.evaluation.accuracy < 0.8
    assert len(build.bundle.blobs) == 3  # model, golden inputs, golden outputs


@pytest.mark.parametrize(
    ("gate", "int8", "passes"),
    [
        (AccuracyGate(0.9, 0.02), 0.93, True),
        (AccuracyGate(0.9, 0.02), 0.92, False),
        (AccuracyGate(0.94, 0.05), 0.93, False),
        (AccuracyGate(0.9, 0.02), 0.99, True),
        (AccuracyGate(0.9, math.nan), 0.95, False),
        (AccuracyGate(math.nan, 0.02), 0.95, False),
    ],
)
def test_the_gate_for_quantized_variants(gate: AccuracyGate, int8: float, passes: bool) -> None:
    def check() -> None:
        gate.check_quantized(Evaluation(int8, 100), Evaluation(0.945, 100))

    if passes:
        check()
    else:
        with pytest.raises(AccuracyTooLow):
            check()


@pytest.mark.parametrize("minimum", [0.951, math.nan])
def test_the_gate_for_fp32_fails_closed(minimum: float) -> None:
    with pytest.raises(AccuracyTooLow):
        AccuracyGate(minimum, 0.1).check_fp32(Evaluation(0.95, 100))
    AccuracyGate(0.95, 0.1).check_fp32(Evaluation(0.95, 100))


def test_golden_inputs_cover_every_class_and_the_corners() -> None:
    training, held_out = _parts()
    probabilities = answer(_model(), held_out.features)
    golden = choose_golden_inputs(held_out, probabilities, training.features)
    np.testing.assert_array_equal(golden[0], training.features.min(axis=0))
    np.testing.assert_array_equal(golden[1], training.features.max(axis=0))
    classes = answer(_model(), golden[3:]).argmax(axis=1)
    assert classes.tolist() == list(range(10))  # each class by an input that is answered rightly
    surest = answer(_model(), golden[2:3]).max()
    assert surest == pytest.approx(probabilities.max(), abs=1e-6)


def test_golden_inputs_stay_within_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    training, held_out = _parts()
    probabilities = answer(_model(), held_out.features)
    for limit, count in ((5 * 256, 5), (1, 1)):
        monkeypatch.setattr(converters.golden, "MAX_GOLDEN_SIZE_BYTES", limit)
        assert len(choose_golden_inputs(held_out, probabilities, training.features)) == count


def _wrong_scales(model: bytes) -> bytes:
    """Return the model with the weight scales of one layer 5 % off, as after a broken conversion."""
    changed = onnx.load_from_string(model)
    scales = next(t for t in changed.graph.initializer if t.name.endswith("_scale") and len(t.dims) == 1)
    off = np.asarray(numpy_helper.to_array(scales) * 1.05, dtype=np.float32)
    scales.CopyFrom(numpy_helper.from_array(off, scales.name))
    return bytes(changed.SerializeToString())


def _one_weight_less(model: bytes) -> bytes:
    """Return the model with the greatest weight of its last layer set to zero."""
    changed = onnx.load_from_string(model)
    matrices = [
        tensor for tensor in changed.graph.initializer if len(tensor.dims) == 2 and tensor.dims[0] > 1
    ]
    values = numpy_helper.to_array(matrices[-1]).copy()
    values.flat[np.abs(values).argmax()] = 0
    matrices[-1].CopyFrom(numpy_helper.from_array(values, matrices[-1].name))
    return bytes(changed.SerializeToString())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("change", [_one_weight_less, lambda _: _model(seed=1)])
def test_the_tolerance_is_too_tight_for_a_changed_model(
    precision: str, change: Callable[[bytes], bytes]
) -> None:
    training, held_out = _parts()
    model = _model() if precision == "fp32" else quantize_int8(_model(), training.features)
    golden = choose_golden_inputs(held_out, answer(_model(), held_out.features), training.features)
    expected = expected_outputs(model, golden, seed=0)
    assert np.abs(answer(change(model), golden) - expected.outputs).max() > expected.tolerance


def test_wrong_scales_fail_the_self_test() -> None:
    training, held_out = _parts()
    int8 = quantize_int8(_model(), training.features)
    golden = choose_golden_inputs(held_out, answer(_model(), held_out.features), training.features)
    expected = expected_outputs(int8, golden, seed=0)
    assert np.abs(answer(_wrong_scales(int8), golden) - expected.outputs).max() > expected.tolerance


def test_the_tolerance_holds_for_other_kernels_and_is_about_the_same_for_every_seed() -> None:
    training, held_out = _parts()
    golden = choose_golden_inputs(held_out, answer(_model(), held_out.features), training.features)
    for model, greatest in ((_model(), 1e-3), (quantize_int8(_model(), training.features), 0.05)):
        tolerances = [expected_outputs(model, golden, seed=seed).tolerance for seed in range(4)]
        assert max(tolerances) < min(3 * min(tolerances), greatest)
        expected = expected_outputs(model, golden, seed=0)
        for optimize in (True, False):
            alone = [answer(model, golden[i : i + 1], optimize=optimize) for i in range(len(golden))]
            assert np.abs(np.concatenate(alone) - expected.outputs).max() <= min(tolerances)


def test_a_model_that_no_tolerance_can_test_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    fp32, int8 = _build().variants
    assert fp32.golden_tolerance is not None
    assert int8.golden_tolerance is not None
    monkeypatch.setattr(converters.golden, "MAX_TOLERANCE", int8.golden_tolerance * 0.9)
    build = _build()
    assert [variant.name for variant in build.bundle.manifest.variants] == ["onnx-fp32"]
    assert "Rounding alone" in build.variants[1].reason
    monkeypatch.setattr(converters.golden, "MAX_TOLERANCE", fp32.golden_tolerance * 0.9)
    with pytest.raises(ConversionFailed, match="Rounding alone"):
        _build()


def test_a_folder_gives_back_the_bundle(tmp_path: Path) -> None:
    bundle = _build().bundle
    write_bundle(tmp_path / "out", bundle)
    again = read_bundle(tmp_path / "out", bundle.sha256)
    assert again == bundle
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_with_contents_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(Conflict):
        write_bundle(tmp_path, _build().bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        write_bundle(tmp_path / "file" / "out", _build().bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_every_changed_byte_of_a_folder_is_noticed(tmp_path: Path) -> None:
    bundle = _build().bundle
    write_bundle(tmp_path / "out", bundle)
    for path in sorted(file for file in (tmp_path / "out").rglob("*") if file.is_file()):
        data = path.read_bytes()
        for damaged in (bytes([data[0] ^ 1]) + data[1:], data[:-1], data + b"\0", b""):
            path.write_bytes(damaged)
            with pytest.raises(DigestMismatch):
                read_bundle(tmp_path / "out", bundle.sha256)
        path.unlink()
        with pytest.raises(NotFound):
            read_bundle(tmp_path / "out", bundle.sha256)
        path.write_bytes(data)
    assert read_bundle(tmp_path / "out", bundle.sha256) == bundle


def test_reports_can_be_stored_as_json() -> None:
    for report in (*_build().variants, *_calibrated_on_nothing().variants):
        assert msgspec.json.decode(msgspec.json.encode(report), type=type(report)) == report
