"""Any source is opened by one function, told by its name and its first bytes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from converters.sources import FILE_KINDS, open_source
from converters.tflite.emit import emit_tflite
from fleet.protocol.errors import InvalidModel, NotFound
from tests.support.onnx_models import cnn, saved, single


def _estimator() -> LogisticRegression:
    features = np.random.RandomState(0).standard_normal((30, 4))
    return LogisticRegression().fit(features, np.arange(30) % 3)


def test_files_are_opened_by_kind(tmp_path: Path) -> None:
    onnx = open_source(saved(tmp_path / "m.onnx", cnn()))
    (tmp_path / "M.TFLITE").write_bytes(emit_tflite(cnn()))
    tflite = open_source(str(tmp_path / "M.TFLITE"), name="mine")
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(_estimator()))
    pickled = open_source(tmp_path / "m.pkl", trust_pickle=True)
    assert [each.framework for each in (onnx, tflite, pickled)] == ["ONNX", "TensorFlow Lite", "scikit-learn"]
    assert [each.name for each in (onnx, tflite, pickled)] == ["m.onnx", "mine", "m.pkl"]


def test_objects_are_opened_by_what_they_descend_from() -> None:
    source = open_source(_estimator(), name="flowers", classes=("a", "b", "c"))
    assert (source.name, source.signature.classes) == ("flowers", ("a", "b", "c"))
    assert open_source(source).signature == source.signature


@pytest.mark.parametrize("model", [object(), 3, None, {"a": 1}, LogisticRegression])
def test_other_objects_are_refused(model: Any) -> None:
    with pytest.raises(InvalidModel, match=r"is no model\..*scikit-learn estimator or a PyTorch module"):
        open_source(model)


def test_a_task_that_is_told_takes_the_place_of_a_guess(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", single("Relu"))
    guessed = open_source(path)
    told = open_source(guessed, task="clustering")
    assert [each.signature.task for each in (guessed, told)] == ["reconstruction", "clustering"]
    assert not any("--task" in caution for caution in told.cautions)
    assert open_source(_estimator(), task="regression").signature.classes == ()
    with pytest.raises(InvalidModel, match=r"LogisticRegression is said to be for anomaly"):
        open_source(_estimator(), task="anomaly")


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("m.onnx", emit_tflite(cnn()), r"named as ONNX, but begins like TensorFlow Lite.*name it \*.tflite"),
        ("m.tflite", cnn().SerializeToString(), "not TFLite"),
        ("m.onnx", pickle.dumps([1]), "begins like pickle"),
        ("m.onnx", b"PK\x03\x04" + bytes(30), "begins like PyTorch"),
        ("m.pkl", b"PK\x03\x04" + bytes(30), "is a pickle"),
        ("m.pt", pickle.dumps([1]), r"torch\.export\.save\("),
        ("m.pth", pickle.dumps([1]), r"torch\.export\.save\("),
        ("m.bin", pickle.dumps([1]), r"begins like pickle: name it \*\.pkl"),
        ("m.h5", b"\x89HDF", r"is not named as a model.*\.onnx.*MLflow folder"),
        ("m", b"", "is not named as a model"),
    ],
)
def test_files_that_are_not_what_they_are_called(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidModel, match=told) as caught:
        open_source(tmp_path / name)
    assert name in str(caught.value)


def test_programs_are_read_only_when_trusted(tmp_path: Path) -> None:
    (tmp_path / "m.joblib").write_bytes(pickle.dumps(_estimator()))
    with pytest.raises(InvalidModel, match="runs whatever program it holds"):
        open_source(tmp_path / "m.joblib")
    assert open_source(tmp_path / "m.joblib", trust_pickle=True).signature.task == "classification"


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(NotFound, match="no file"):
        open_source("m\0.onnx")


@pytest.mark.parametrize("suffix", [suffix for kind in FILE_KINDS for suffix in kind.suffixes])
def test_what_is_not_there_or_no_file(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(NotFound, match="no file"):
        open_source(tmp_path / f"m{suffix}", trust_pickle=True)
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(InvalidModel, match="folder without the file MLmodel"):
        open_source(tmp_path / f"folder{suffix}")
    with pytest.raises(InvalidModel, match="cannot be read"):
        open_source(tmp_path / ("n" * 300 + suffix))


def test_a_shape_of_samples_is_refused_where_the_model_states_its_own(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", cnn())
    with pytest.raises(InvalidModel, match=r"m\.onnx states the shape of its samples itself"):
        open_source(path, sample_shape=(8, 8))
