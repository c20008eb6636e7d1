"""MLflow folders and pickles as sources, in the layouts that MLflow 2 and 3 write."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from converters.sources.mlflow import open_mlflow
from converters.sources.pickles import load_pickled, open_pickle
from converters.sources.sklearn import open_sklearn
from fleet.protocol.errors import InvalidModel, NotFound
from tests.support.sources import assert_parity

RANDOM = np.random.RandomState(0)
SAMPLES = RANDOM.standard_normal((80, 3)).astype(np.float32)
LABELS = (SAMPLES.sum(axis=1) > 0).astype(int)
COLOURS = np.array(["red", "green"], dtype=object)[RANDOM.randint(2, size=80)]
COLUMNS = [{"type": "double", "name": name, "required": True} for name in ("age", "height", "weight")]
LABEL = [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]


def _classifier() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(SAMPLES.astype(np.float64), LABELS)


def _mixed() -> Pipeline:
    table = np.empty((80, 4), dtype=object)
    table[:, [0, 2, 3]], table[:, 1] = SAMPLES.astype(np.float64), COLOURS
    columns = ColumnTransformer([("n", StandardScaler(), [0, 2, 3]), ("c", OneHotEncoder(), [1])])
    return make_pipeline(columns, LogisticRegression()).fit(table, LABELS)


MIXED = [COLUMNS[0], {"type": "string", "name": "colour", "required": True}, COLUMNS[1], COLUMNS[2]]


def _signature(inputs: object, outputs: object = None) -> dict[str, Any]:
    return {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs or LABEL), "params": None}


def _describe(folder: Path, flavors: dict[str, Any], **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    loader = {"loader_module": "mlflow." + next(iter(flavors), "pyfunc"), "python_version": "3.11.9"}
    content = {"flavors": {"python_function": loader, **flavors}, "mlflow_version": "3.4.0", **more}
    (folder / "MLmodel").write_text(yaml.safe_dump(content))
    return folder


def sklearn_folder(
    folder: Path, estimator: Any, *, version: int = 3, signature: Any = None, **flavor: Any
) -> Path:
    """Write what ``mlflow.sklearn.save_model`` writes, as far as a reader looks at it."""
    chosen = {"code": None, "pickled_model": "model.pkl", "serialization_format": "cloudpickle"}
    chosen |= {"sklearn_version": "1.7.2", **flavor}
    more: dict[str, Any] = {
        "model_uuid": "6e2c",
        "utc_time_created": "2025-10-01 10:00:00.000000",
        "run_id": "0b1f",
    }
    if version == 3:
        more |= {
            "model_id": "m-6e2c",
            "model_size_bytes": 1024,
            "prompts": None,
            "artifact_path": "models/m-6e2c",
        }
    if signature is not None:
        more["signature"] = signature
    _describe(folder, {"sklearn": chosen}, **more)
    (folder / "model.pkl").write_bytes(pickle.dumps(estimator))
    return folder


def onnx_folder(folder: Path, estimator: Any, *, signature: Any = None, **more: Any) -> Path:
    """Write what ``mlflow.onnx.save_model`` writes, as far as a reader looks at it."""
    if signature is not None:
        more["signature"] = signature
    flavor = {
        "code": None,
        "data": "model.onnx",
        "onnx_version": "1.19.0",
        "providers": ["CPUExecutionProvider"],
    }
    _describe(folder, {"onnx": flavor}, **more)
    (folder / "model.onnx").write_bytes(open_sklearn(estimator).onnx or b"")
    return folder


@pytest.mark.parametrize("version", [2, 3])
def test_a_pickled_estimator_gets_its_columns_names(tmp_path: Path, version: int) -> None:
    folder = sklearn_folder(tmp_path / "model", _classifier(), version=version, signature=_signature(COLUMNS))
    source = open_mlflow(folder, trusted=True)
    assert source.name == "model"
    assert source.signature.inputs[0].columns == ("age", "height", "weight")
    assert len(source.sha256) == 64
    assert_parity(source, {"input": SAMPLES})


def test_numbers_and_text_get_theirs(tmp_path: Path) -> None:
    folder = sklearn_folder(tmp_path / "model", _mixed(), signature=_signature(MIXED))
    source = open_mlflow(folder, trusted=True, classes=("no", "yes"))
    assert [tensor.columns for tensor in source.signature.inputs] == [
        ("age", "height", "weight"),
        ("colour",),
    ]
    assert source.signature.classes == ("no", "yes")
    assert_parity(source, {"input": SAMPLES, "categories": COLOURS[:, np.newaxis]})


def test_an_onnx_file_gets_its_columns_names(tmp_path: Path) -> None:
    folder = onnx_folder(tmp_path / "model", _classifier(), signature=_signature(COLUMNS))
    source = open_mlflow(folder)
    assert source.framework == "ONNX"
    assert source.signature.inputs[0].columns == ("age", "height", "weight")
    assert_parity(source, {"input": SAMPLES})


def test_tensors_are_compared(tmp_path: Path) -> None:
    tensor = {"name": "input", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}
    source = open_mlflow(onnx_folder(tmp_path / "onnx", _classifier(), signature=_signature([tensor])))
    assert source.signature.inputs[0].shape == (-1, 3)
    unnamed = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}
    sklearn = sklearn_folder(tmp_path / "sklearn", _classifier(), signature=_signature([unnamed]))
    assert open_mlflow(sklearn, trusted=True).signature.inputs[0].shape == (-1, 3)


def test_without_a_signature_the_model_speaks_for_itself(tmp_path: Path) -> None:
    source = open_mlflow(sklearn_folder(tmp_path / "model", _classifier()), trusted=True)
    assert source.signature.inputs[0].columns == ()
    assert_parity(source, {"input": SAMPLES})


def test_the_onnx_file_is_preferred_and_the_pickle_left_alone(tmp_path: Path) -> None:
    folder = onnx_folder(tmp_path / "model", _classifier())
    content = yaml.safe_load((folder / "MLmodel").read_text())
    content["flavors"]["sklearn"] = {"pickled_model": "model.pkl", "serialization_format": "pickle"}
    (folder / "MLmodel").write_text(yaml.safe_dump(content))
    (folder / "model.pkl").write_bytes(b"not a pickle")
    assert open_mlflow(folder, trusted=True).framework == "ONNX"


def _spec(shape: list[int], dtype: str = "float64") -> list[dict[str, Any]]:
    return [{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}]


CONTRADICTIONS: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "too few columns": (_classifier, _signature(COLUMNS[:2]), "2 columns"),
    "text for a number": (
        _classifier,
        _signature([*COLUMNS[:2], {"type": "string", "name": "w"}]),
        "'string'",
    ),
    "a number for text": (_mixed, _signature([*COLUMNS, {"type": "long", "name": "x"}]), "takes text"),
    "another shape": (_classifier, _signature(_spec([-1, 8])), "has shape"),
    "numbers for text": (_mixed, _signature(_spec([-1, 4])), "takes text"),
    "an image for numbers": (_classifier, _signature(_spec([-1, 3, 1])), "has shape"),
    "a type that is neither": (_classifier, _signature([{"type": "datetime", "name": "t"}]), "'datetime'"),
    "columns and tensors": (_classifier, _signature([*COLUMNS, *LABEL]), "mix"),
    "not a list": (_classifier, {"inputs": "{}"}, "cannot be understood"),
    "not JSON": (_classifier, {"inputs": "[{"}, "cannot be understood"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_signature_that_contradicts_the_model_is_refused(tmp_path: Path, name: str) -> None:
    estimator, signature, message = CONTRADICTIONS[name]
    folder = sklearn_folder(tmp_path / "model", estimator(), signature=signature)
    with pytest.raises(InvalidModel, match=message) as caught:
        open_mlflow(folder, trusted=True)
    assert "MLmodel" in caught.value.message


ONNX_CONTRADICTIONS = {
    "too many columns": (_signature([*COLUMNS, COLUMNS[0]]), "4 columns"),
    "text for numbers": (_signature([{"type": "string", "name": n} for n in "abc"]), "'string'"),
    "another shape": (_signature(_spec([-1, 4], "float32")), "has shape"),
    "two inputs": (_signature([*_spec([-1, 3]), *_spec([-1, 3])]), "has the inputs"),
}


@pytest.mark.parametrize("name", ONNX_CONTRADICTIONS)
def test_a_signature_that_contradicts_the_onnx_file_is_refused(tmp_path: Path, name: str) -> None:
    signature, message = ONNX_CONTRADICTIONS[name]
    with pytest.raises(InvalidModel, match=message):
        open_mlflow(onnx_folder(tmp_path / "model", _classifier(), signature=signature))


def test_a_regression_of_another_width_is_refused(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(SAMPLES.astype(np.float64), SAMPLES[:, 0])
    folder = sklearn_folder(tmp_path / "model", fitted, signature=_signature(COLUMNS, _spec([-1, 2])))
    with pytest.raises(InvalidModel, match="the model gives"):
        open_mlflow(folder, trusted=True)


@pytest.mark.parametrize(
    "name", ["../model.pkl", "sub/../../model.pkl", "{tmp}/model.pkl", "link.pkl", "out/model.pkl"]
)
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "model.pkl"
    outside.write_bytes(pickle.dumps(_classifier()))
    folder = sklearn_folder(tmp_path / "model", _classifier(), pickled_model=name.format(tmp=tmp_path))
    (folder / "sub").mkdir()
    (folder / "link.pkl").symlink_to(outside)
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(InvalidModel, match="not inside the folder"):
        open_mlflow(folder, trusted=True)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="MLmodel"):
        open_mlflow(tmp_path / "nothing")
    folder = sklearn_folder(tmp_path / "model", _classifier(), pickled_model="other.pkl")
    with pytest.raises(NotFound, match=r"other\.pkl"):
        open_mlflow(folder, trusted=True)
    with pytest.raises(InvalidModel, match="not a file"):
        open_mlflow(sklearn_folder(tmp_path / "again", _classifier(), pickled_model="."), trusted=True)


MERGED_BEYOND_MEMORY = b"a0: &a0 {x: 1}\n" + b"".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n".encode() for n in range(1, 20)
)
"""9 to the power of 19 keys, if each is merged."""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"flavors: [",
        b"flavors: 3",
        b"flavors: {sklearn: {pickled_model: [1]}}",
        b"\xff\xfe\x00",
        b"a: !!python/object/apply:os.system ['true']",
        b"[" * 5000,
        b"flavors: !!bool perhaps",
        b"flavors: !!timestamp yesterday",
        b"flavors: !!int ''",
        b"a: &a {b: c}\n<<: *a\nflavors: {onnx: {data: m.onnx}}",
        MERGED_BEYOND_MEMORY,
    ],
)
def test_a_description_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "MLmodel").write_bytes(content)
    with pytest.raises(InvalidModel, match="MLmodel"):
        open_mlflow(tmp_path, trusted=True)


def test_a_description_that_is_too_large_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(InvalidModel, match="larger"):
        open_mlflow(tmp_path)


def test_flavours_and_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="neither an onnx nor a sklearn"):
        open_mlflow(_describe(tmp_path / "torch", {"pytorch": {"model_data": "data"}}))
    folder = sklearn_folder(tmp_path / "skops", _classifier(), serialization_format="skops")
    with pytest.raises(InvalidModel, match="'skops'"):
        open_mlflow(folder, trusted=True)


class Marker:
    """Unpickled, it leaves a file: the program in a pickle ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_no_pickle_runs_without_trust(tmp_path: Path) -> None:
    folder = sklearn_folder(tmp_path / "model", Marker(tmp_path / "ran"))
    with pytest.raises(InvalidModel, match="is a pickle"):
        open_mlflow(folder)
    with pytest.raises(InvalidModel, match="is a pickle"):
        load_pickled(folder / "model.pkl", trusted=False)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InvalidModel, match="no scikit-learn estimator"):
        open_mlflow(folder, trusted=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("compress", [0, 3])
def test_files_of_joblib_are_read(tmp_path: Path, compress: int) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(_classifier(), path, compress=compress)
    source = open_pickle(path, trusted=True)
    assert source.name == "model.joblib"
    assert_parity(source, {"input": SAMPLES})


class Failing:
    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("not a number",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"not a pickle", "cannot be read"),
        (pickle.dumps(_classifier())[:-40], "cannot be read"),
        (b"cmodule_of_nobody\nThing\n.", "Install the package of the module 'module_of_nobody'"),
        (b"csklearn.linear_model\nNoSuchModel\n.", "save the model again"),
        (pickle.dumps(Failing()), "ValueError"),
    ],
)
def test_a_pickle_that_fails_is_one_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    with pytest.raises(InvalidModel) as caught:
        load_pickled(path, trusted=True)
    assert message in str(caught.value)
    assert str(path) in caught.value.message


def test_a_pickle_of_another_release_is_a_caution(tmp_path: Path) -> None:
    class Old(LogisticRegression):  # type: ignore[misc]
        def __getstate__(self) -> dict[str, Any]:
            return {**super().__getstate__(), "_sklearn_version": "1.5.0"}

    old = Old().fit(SAMPLES.astype(np.float64), LABELS)
    state = old.__getstate__()
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(_Saved(LogisticRegression, state)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = open_pickle(path, trusted=True)
    assert any("1.5.0" in caution for caution in source.cautions)


class _Saved:
    """Pickles as an object of a class in a state, as scikit-learn's own do."""

    def __init__(self, kind: type, state: dict[str, Any]) -> None:
        self.kind, self.state = kind, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.kind, (), self.state


def test_a_missing_pickle_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load_pickled(tmp_path / "model.pkl", trusted=True)
    with pytest.raises(InvalidModel, match="cannot be read"):
        load_pickled(tmp_path, trusted=True)


def test_what_comes_from_a_folder_is_what_the_estimator_gives(tmp_path: Path) -> None:
    fitted = _classifier()
    source = open_mlflow(sklearn_folder(tmp_path / "model", fitted), trusted=True)
    expected: NDArray[Any] = fitted.predict_proba(SAMPLES.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(source.answer({"input": SAMPLES}), expected)
    assert source.onnx == open_sklearn(fitted).onnx
