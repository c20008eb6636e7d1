"""Bundle and folder: what is packed, and that it is what the manifest says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import pytest

import converters.golden
from converters.bundle import BUILD_STEPS, Build, build_bundle
from converters.evaluate import answer, evaluate
from converters.folder import read_bundle, write_bundle
from converters.gate import AccuracyGate
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
from fleet.protocol.manifest import Provenance, choose_variant, decode_manifest
from tests.support.digits import CLASSES, fitted_model, training_and_held_out

PASS_ALL = AccuracyGate(minimum_accuracy=0.0, maximum_drop=1.0)
PROVENANCE = Provenance("digits", "0" * 64, "mlp", {"hidden": 64}, 3, {"numpy": np.__version__})


def _build(gate: AccuracyGate = PASS_ALL, **changes: Any) -> Build:
    training, held_out = training_and_held_out()
    arguments: dict[str, Any] = {
        "model": "digits",
        "version": 2,
        "held_out": held_out,
        "calibration": training.features,
        "gate": gate,
        "provenance": PROVENANCE,
    }
    return build_bundle(fitted_model()[1], **{**arguments, **changes})


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
    _, held_out = training_and_held_out()
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
    _, held_out = training_and_held_out()
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
    training, _ = training_and_held_out()
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
