"""Bundle and folder: what is packed, and that it is what the manifest says."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from converters.bundles.bundle import Bundle, Identity, renamed
from converters.bundles.folder import read_bundle, write_bundle
from converters.judging.variant import answer
from converters.targets import TARGETS
from fleet.drift.features import OUTPUT_CONFIDENCE, build_reference
from fleet.protocol.errors import Conflict, DigestMismatch, InvalidManifest, NotFound, StorageError
from fleet.protocol.manifest import Provenance, choose_variant, decode_manifest
from fleet.protocol.messages import Capabilities
from fleet.quality.calibration import with_correct
from tests.support.digits import CLASSES, digits_conversion, training_and_held_out

PROVENANCE = Provenance("digits", "0" * 64, "mlp", {"hidden": 64}, 3, {"numpy": np.__version__})
DEVICE = Capabilities("1", "aarch64", {"onnxruntime": "1.31.1"}, 2**30, 2**30)


@cache
def _bundle() -> Bundle:
    bundle = digits_conversion(identity=Identity("digits", 2, PROVENANCE)).bundle
    assert bundle is not None
    return bundle


def test_the_bundle_holds_what_the_manifest_names() -> None:
    bundle = _bundle()
    assert decode_manifest(bundle.manifest_bytes) == bundle.manifest
    assert bundle.sha256 == hashlib.sha256(bundle.manifest_bytes).hexdigest()
    files = {f for variant in bundle.manifest.variants for f in bundle.manifest.files(variant)}
    assert {file.sha256: file.size_bytes for file in files} == {k: len(v) for k, v in bundle.blobs.items()}
    for sha256, data in bundle.blobs.items():
        assert hashlib.sha256(data).hexdigest() == sha256


def test_the_smallest_variant_comes_first_and_a_device_gets_the_first_that_it_runs() -> None:
    manifest = _bundle().manifest
    sizes = [variant.model_file.size_bytes for variant in manifest.variants]
    assert sizes == sorted(sizes)
    assert {variant.name for variant in manifest.variants} == {"onnx-fp32", "onnx-int8", "tflite-int8"}
    assert choose_variant(manifest, DEVICE).name == "onnx-int8"
    for variant in manifest.variants:
        assert variant.requirement.size_bytes == variant.model_file.size_bytes
        assert variant.evaluation.samples == len(training_and_held_out()[1])
        assert variant.evaluation.value > 0.94


def test_signature_profile_and_provenance_are_those_of_the_model() -> None:
    bundle = _bundle()
    manifest = bundle.manifest
    assert (manifest.model, manifest.version, manifest.provenance) == ("digits", 2, PROVENANCE)
    assert manifest.signature.classes == CLASSES
    assert [(t.name, t.dtype, t.shape) for t in manifest.signature.inputs] == [
        ("input", "float32", (-1, 8, 8))
    ]
    assert [t.shape for t in manifest.signature.outputs] == [(-1, 10)]
    _, held_out = training_and_held_out()
    preferred = manifest.variants[0]
    session = TARGETS[preferred.name].runtime.open(
        bundle.blobs[preferred.model_file.sha256], manifest.signature
    )
    answers = answer(session, {"input": held_out.features})
    profile = build_reference("classification", held_out.features, answers)
    assert manifest.reference == with_correct(profile, answers, held_out.labels)
    confidence = next(f for f in manifest.reference.features if f.name == OUTPUT_CONFIDENCE)
    assert sum(confidence.correct) == (answers.argmax(axis=1) == held_out.labels).sum()
    assert all(sum(f.cells) == len(held_out) for f in manifest.reference.features)


def test_every_variant_passes_its_self_test_as_a_device_runs_it() -> None:
    bundle = _bundle()
    manifest = bundle.manifest
    shape = (manifest.golden_count, *manifest.signature.inputs[0].shape[1:])
    inputs = np.frombuffer(bundle.blobs[manifest.golden_inputs[0].sha256], "<f4").reshape(shape)
    for variant in manifest.variants:
        expected = np.frombuffer(bundle.blobs[variant.golden_outputs.sha256], "<f4").reshape(len(inputs), -1)
        session = TARGETS[variant.name].runtime.open(
            bundle.blobs[variant.model_file.sha256], manifest.signature
        )
        one_by_one = np.concatenate([session.run({"input": one[None]}) for one in inputs])
        assert np.abs(one_by_one - expected).max() <= variant.golden_tolerance


@pytest.mark.parametrize(("model", "version"), [("../etc", 1), ("digits", 0), ("", 1)])
def test_unusable_names_and_versions_are_refused(model: str, version: int) -> None:
    with pytest.raises(InvalidManifest):
        renamed(_bundle(), model, version)


def test_a_renamed_bundle_has_the_same_files() -> None:
    bundle = renamed(_bundle(), "other", 7)
    assert (bundle.manifest.model, bundle.manifest.version) == ("other", 7)
    assert bundle.blobs == _bundle().blobs
    assert renamed(bundle, "digits", 2) == _bundle()


def test_a_folder_gives_back_the_bundle(tmp_path: Path) -> None:
    bundle = _bundle()
    write_bundle(tmp_path / "out", bundle)
    again = read_bundle(tmp_path / "out", bundle.sha256)
    assert again == bundle
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_with_contents_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(Conflict):
        write_bundle(tmp_path, _bundle())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        write_bundle(tmp_path / "file" / "out", _bundle())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_every_changed_byte_of_a_folder_is_noticed(tmp_path: Path) -> None:
    bundle = _bundle()
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
