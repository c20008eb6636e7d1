"""MLflow model folders as a source, read without MLflow.

A folder has a file ``MLmodel``, YAML, that says in which flavours the model is there and what it takes and
gives::

    flavors:
      onnx: {data: model.onnx}                                            an ONNX file
      sklearn: {pickled_model: model.pkl, serialization_format: cloudpickle}      a pickled estimator
    signature:
      inputs: '[{"name": "age", "type": "double"}, …]'                             columns of a table, or
      outputs: '[{"type": "tensor", "tensor-spec": {"dtype": …, "shape": …}}]'     tensors

Of the two flavours ``onnx`` is preferred: it is data, not a program. The layout is that of MLflow 1 to 3 (its
documentation, "MLflow Models"). The signature gives columns their names; where it contradicts the model,
the folder is refused. What it says of labels is left aside: bundles give probabilities.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from converters.source import Source
from converters.sources.mlflow_signature import apply_to_onnx, apply_to_table, fields_of
from converters.sources.onnx_file import open_onnx
from converters.sources.pickles import Unpickled, load_pickled, open_unpickled
from converters.sources.sklearn_columns import by_position, columns_of
from fleet.protocol.errors import InvalidModel, NotFound

DESCRIPTION = "MLmodel"
MAX_DESCRIPTION_SIZE_BYTES = 1024 * 1024
PICKLES = ("pickle", "cloudpickle")


class OnnxFlavor(msgspec.Struct, frozen=True):
    """Where the ONNX file is.

    Attributes:
        data: Its path inside the folder.
    """

    data: str


class SklearnFlavor(msgspec.Struct, frozen=True):
    """Where the pickled estimator is.

    Attributes:
        pickled_model: Its path inside the folder.
        serialization_format: How it was written.
    """

    pickled_model: str
    serialization_format: str = "pickle"


class Flavors(msgspec.Struct, frozen=True):
    """The flavours that are read here; others are left aside.

    Attributes:
        onnx: None where there is no such flavour.
        sklearn: None where there is no such flavour.
    """

    onnx: OnnxFlavor | None = None
    sklearn: SklearnFlavor | None = None


class SignatureText(msgspec.Struct, frozen=True):
    """The signature as the file has it.

    Attributes:
        inputs: A JSON list; None where nothing is said.
        outputs: The same.
    """

    inputs: str | None = None
    outputs: str | None = None


class Description(msgspec.Struct, frozen=True):
    """What is read of the file ``MLmodel``.

    Attributes:
        flavors: What the model is there as.
        signature: None where none was logged.
    """

    flavors: Flavors
    signature: SignatureText | None = None


def open_mlflow(folder: Path, *, trusted: bool = False, classes: tuple[str, ...] = ()) -> Source:
    """Return the model in an MLflow folder as a source.

    Args:
        folder: Has a file ``MLmodel``.
        trusted: Whether a pickle in it may be read, which runs the program that it is.
        classes: Names of the classes; empty for the model's own.

    Raises:
        NotFound: There is no such folder, or a file that it names is not there.
        InvalidModel: The folder cannot be understood, leads outside itself, has no flavour that can be
            read, needs trust that was not given, or contradicts its model.
        ConversionFailed: The model has no counterpart in ONNX.
    """
    described = _description(folder)
    signature = described.signature or SignatureText()
    where = str(folder / DESCRIPTION)
    inputs = fields_of(signature.inputs, "inputs", where)
    outputs = fields_of(signature.outputs, "outputs", where)
    if described.flavors.onnx is not None:
        path = _inside(folder, described.flavors.onnx.data)
        source = open_onnx(path, name=folder.name, classes=classes)
        return apply_to_onnx(source, inputs, outputs, where)
    if described.flavors.sklearn is not None:
        estimator = _estimator(folder, described.flavors.sklearn, trusted=trusted)
        source = open_unpickled(estimator, name=folder.name, classes=classes)
        return apply_to_table(source, columns_of(by_position(estimator.value)), inputs, outputs, where)
    raise InvalidModel(
        f"{where} has neither an onnx nor a sklearn flavour.",
        remedy="Log the model with mlflow.onnx or mlflow.sklearn.",
    )


def _estimator(folder: Path, flavor: SklearnFlavor, *, trusted: bool) -> Unpickled:
    if flavor.serialization_format not in PICKLES:
        raise InvalidModel(
            f"{folder / DESCRIPTION} has a model in the format {flavor.serialization_format!r:.40}, which is"
            " not read.",
            remedy="Log it with serialization_format='cloudpickle', or with mlflow.onnx.",
        )
    return load_pickled(_inside(folder, flavor.pickled_model), trusted=trusted)


def _description(folder: Path) -> Description:
    """Return what the file ``MLmodel`` says.

    Its YAML is read without merge keys, by which a small file can stand for any amount of memory.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            """Leave merge keys as they are: of a type of which nothing is made."""

    path = _inside(folder, DESCRIPTION)
    with path.open("rb") as stream:
        data = stream.read(MAX_DESCRIPTION_SIZE_BYTES + 1)
    if len(data) > MAX_DESCRIPTION_SIZE_BYTES:
        raise InvalidModel(f"{path} is larger than the {MAX_DESCRIPTION_SIZE_BYTES} bytes that are allowed.")
    try:
        content: Any = yaml.load(data, Loader)  # noqa: S506 - it makes no more than the safe one
        return msgspec.convert(content, Description)
    except Exception as error:  # what is not of its stated type raises whatever its constructor raises
        reason = " ".join(str(error).split())
        raise InvalidModel(f"{path} does not describe an MLflow model: {reason:.300}") from error


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file that a folder names, if it is inside the folder.

    Raises:
        NotFound: It is not there.
        InvalidModel: It leads outside, also by a symbolic link.
    """
    relative = PurePosixPath(name)
    try:
        path = (folder / relative).resolve(strict=True)
        inside = path.is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError) as error:
        raise NotFound(f"There is no file {name!r:.200} in {folder}.") from error
    if relative.is_absolute() or ".." in relative.parts or not inside:
        raise InvalidModel(f"{folder} names the file {name!r:.200}, which is not inside the folder.")
    if not path.is_file():
        raise InvalidModel(f"{name!r:.200} in {folder} is not a file.")
    return path
