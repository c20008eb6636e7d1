"""What a bundle says of where it comes from is enough to build it again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPClassifier

from converters.bundles.pack import pack
from converters.data.dataset import file_sha256
from converters.judging.gate import Gate
from converters.judging.prepare import prepare
from converters.judging.variant import build_variant
from converters.sources.sklearn import open_sklearn
from converters.target import Work
from converters.targets import TARGETS


def _dataset(path: Path, seed: int) -> Path:
    features = np.random.RandomState(seed).standard_normal((80, 4))
    np.savez(path, features=features, labels=(features[:, 0] > features[:, 1]).astype(np.int64))
    return path


def test_layers_that_were_found_and_both_datasets_are_named(tmp_path: Path) -> None:
    calibration, held_out = _dataset(tmp_path / "a.npz", 1), _dataset(tmp_path / "b.npz", 2)
    with np.load(calibration) as arrays:
        network = MLPClassifier((8,), max_iter=500, tol=1e-2, random_state=0)
        source = open_sklearn(network.fit(arrays["features"], arrays["labels"]))
    prepared = prepare(source, calibration, held_out, Gate(maximum_drop=0.1), 0)
    assert source.onnx is not None
    work = Work(source.onnx, source.signature, prepared.calibration)
    mixed = replace(work, keep_float=frozenset({"MatMul_0"}))  # as a search finds it, for one variant
    candidates = [
        build_variant(TARGETS["onnx-fp32"], work, prepared.yardstick),
        build_variant(TARGETS["onnx-int8"], mixed, prepared.yardstick),
    ]
    bundle = pack(candidates, source, prepared, work, identity=None, seed=0)
    assert bundle is not None
    assert [variant.name for variant in bundle.manifest.variants] != ["onnx-fp32"]
    stated = bundle.manifest.provenance
    assert stated.dataset_sha256 == file_sha256(calibration)
    assert stated.hyperparameters["held_out_sha256"] == file_sha256(held_out)
    assert stated.hyperparameters["keep_float of onnx-int8"] == "MatMul_0"
    assert "keep_float of onnx-fp32" not in stated.hyperparameters
