"""The kinds of trained models that a conversion takes in, and the one way to open any of them.

A file is taken for what its name ends in, and its first bytes must not say otherwise. Adding a kind takes a
module that ends in a `converters.source.Source`, and a row in one of the tables here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.source import Source
from fleet.protocol.errors import InvalidModel, NotFound
from fleet.protocol.manifest import Task


@dataclass(frozen=True)
class Opening:
    """How to open a source; what a kind has no use for is left aside.

    Attributes:
        name: What to call it; empty for its own name.
        classes: Names of the classes, in the order of the output's columns; empty for its own.
        task: What it is for; None for what it says itself, or for a guess that is a caution.
        trust_pickle: Whether a file that is a program, such as a pickle, may run.
        sample_shape: Shape of one sample as devices see it, for scikit-learn models of flattened samples.
        example_inputs: Inputs to trace a PyTorch module with.
    """

    name: str = ""
    classes: tuple[str, ...] = ()
    task: Task | None = None
    trust_pickle: bool = False
    sample_shape: tuple[int, ...] | None = None
    example_inputs: Any = None


@dataclass(frozen=True)
class FileKind:
    """A kind of model file.

    Attributes:
        title: What to call it in messages.
        suffixes: What its name ends in.
        open: Reads it.
    """

    title: str
    suffixes: tuple[str, ...]
    open: Callable[[Path, Opening], Source]


def open_source(
    source: Source | Path | str | Any,
    *,
    name: str = "",
    classes: tuple[str, ...] = (),
    task: Task | None = None,
    trust_pickle: bool = False,
    sample_shape: tuple[int, ...] | None = None,
    example_inputs: Any = None,
) -> Source:
    """Open a trained model, whatever kind it is.

    Args:
        source: The path of a model's file or MLflow folder, a fitted scikit-learn estimator, a PyTorch
            module, or a source that is open already.
        name: See `Opening`, like all that follow.
        classes: Names of the classes.
        task: What it is for.
        trust_pickle: Whether a program in a file may run.
        sample_shape: Shape of one sample.
        example_inputs: Inputs to trace a PyTorch module with.

    Raises:
        NotFound: There is no such file.
        InvalidModel: It is no model, or one that cannot be used; the message says why, and the way out.
        ConversionFailed: It cannot be turned into a graph.
        UnsupportedOperator: It needs an operator that devices do not have.
    """
    how = Opening(name, classes, task, trust_pickle, sample_shape, example_inputs)
    if isinstance(source, Source):
        opened = source
    elif isinstance(source, str | Path):
        opened = _open_path(Path(source), how)
    else:
        opened = _open_object(source, how)
    if sample_shape is not None and opened.framework != "scikit-learn":
        raise InvalidModel(
            f"{opened.name} states the shape of its samples itself: sample_shape is for scikit-learn alone.",
            remedy="Leave it out.",
        )
    return _told(opened, how)


def _told(source: Source, how: Opening) -> Source:
    """Return the source as a person wants it called and understood."""
    from converters.sources.tasks import with_task

    return replace(with_task(source, how.task), name=how.name or source.name)


def _open_onnx(path: Path, how: Opening) -> Source:
    from converters.sources.onnx_file import open_onnx

    return open_onnx(path, name=how.name, classes=how.classes, task=how.task)


def _open_tflite(path: Path, how: Opening) -> Source:
    from converters.sources.tflite_file import open_tflite

    return open_tflite(path, name=how.name, classes=how.classes, task=how.task)


def _open_pytorch(model: Any, how: Opening) -> Source:
    from converters.sources.pytorch import open_pytorch

    return open_pytorch(
        model,
        example_inputs=how.example_inputs,
        name=how.name,
        classes=how.classes,
        task=how.task,
        trusted=how.trust_pickle,
    )


def _open_pickle(path: Path, how: Opening) -> Source:
    from converters.sources.pickles import open_pickle

    return open_pickle(path, trusted=how.trust_pickle, classes=how.classes, sample_shape=how.sample_shape)


def _open_sklearn(estimator: Any, how: Opening) -> Source:
    from converters.sources.sklearn import open_sklearn

    return open_sklearn(estimator, name=how.name, classes=how.classes, sample_shape=how.sample_shape)


def _open_mlflow(folder: Path, how: Opening) -> Source:
    from converters.sources.mlflow import open_mlflow

    return open_mlflow(folder, trusted=how.trust_pickle, classes=how.classes)


ONNX = FileKind("ONNX", (".onnx",), _open_onnx)
TFLITE = FileKind("TensorFlow Lite", (".tflite",), _open_tflite)
PYTORCH = FileKind("PyTorch", (".pt2", ".pt", ".pth"), _open_pytorch)
PICKLE = FileKind("pickle", (".pkl", ".pickle", ".joblib"), _open_pickle)
FILE_KINDS = (ONNX, TFLITE, PYTORCH, PICKLE)

_BEGINNINGS: tuple[tuple[int, bytes, FileKind], ...] = (
    (4, b"TFL3", TFLITE),  # identifier of the flatbuffer
    (0, b"PK\x03\x04", PYTORCH),  # ZIP archive
    (0, b"\x80", PICKLE),  # protocol 2 and newer; no protobuf of a model begins so
)
"""What some kinds have at a place in their first bytes. ONNX has no such mark, and joblib compresses."""

_OBJECTS: tuple[tuple[str, str, Callable[[Any, Opening], Source]], ...] = (
    ("torch", "Module", _open_pytorch),
    ("sklearn", "BaseEstimator", _open_sklearn),
)
"""Kinds of objects: package and name of the class that they descend from, told without importing it."""


def _open_path(path: Path, how: Opening) -> Source:
    if "\0" in str(path):  # the system cannot even be asked for such a file
        raise NotFound(f"There is no file {str(path)!r}.")
    named = next((kind for kind in FILE_KINDS if path.suffix.lower() in kind.suffixes), None)
    try:
        if path.is_dir():
            return _open_folder(path, how)
        found = _kind_by_content(path)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.") from error
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read: {error.strerror}.") from error
    if named is None:
        seems = f" It begins like {found.title}: name it *{found.suffixes[0]} if it is." if found else ""
        raise InvalidModel(f"{path} is not named as a model.{seems}", remedy=_accepted())
    if found is not None and found is not named and {found, named} != {PYTORCH, PICKLE}:
        raise InvalidModel(
            f"{path} is named as {named.title}, but begins like {found.title}.",
            remedy=f"Give the right file, or name it *{found.suffixes[0]}.",
        )
    return named.open(path, how)


def _open_folder(folder: Path, how: Opening) -> Source:
    if not (folder / "MLmodel").exists():
        raise InvalidModel(
            f"{folder} is a folder without the file MLmodel, so it is no MLflow model.", remedy=_accepted()
        )
    return _open_mlflow(folder, how)


def _kind_by_content(path: Path) -> FileKind | None:
    """Return the kind that a file's first bytes belong to; None where they tell nothing."""
    if path.exists() and not path.is_file():
        raise InvalidModel(f"{path} is not a file.", remedy=_accepted())
    with path.open("rb") as stream:
        head = stream.read(16)
    return next((kind for at, mark, kind in _BEGINNINGS if head[at:].startswith(mark)), None)


def _open_object(model: Any, how: Opening) -> Source:
    ancestors = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(model).__mro__}
    for package, name, opener in _OBJECTS:
        if (package, name) in ancestors:
            return opener(model, how)
    raise InvalidModel(f"An object of class {type(model).__name__} is no model.", remedy=_accepted())


def _accepted() -> str:
    files = ", ".join(f"{kind.title} ({', '.join(kind.suffixes)})" for kind in FILE_KINDS)
    return f"A model is a file of {files}, an MLflow folder, a scikit-learn estimator or a PyTorch module."
