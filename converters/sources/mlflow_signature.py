"""The signature of an MLflow model, laid on the signature that was read from the model itself.

MLflow writes inputs and outputs as JSON lists, of columns or of tensors (its documentation, "Model
Signatures")::

    [{"name": "age", "type": "double", "required": true}, …]
    [{"name": "image", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 8, 8]}}]

Numbers of any type suit an input of numbers: MLflow itself casts them. Text suits text only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec

from converters.source import Source
from converters.sources.sklearn_columns import NUMBERS, TEXT, Columns
from fleet.protocol.errors import InvalidModel
from fleet.protocol.manifest import Tensor

NUMBER_TYPES = frozenset({"boolean", "integer", "long", "float", "double"})
TEXT_TYPE = "string"


class TensorSpec(msgspec.Struct, frozen=True):
    """Type and shape of a tensor.

    Attributes:
        dtype: NumPy's name of the type.
        shape: Sizes, -1 where any will do.
    """

    dtype: str
    shape: tuple[int, ...]


class Field(msgspec.Struct, frozen=True, rename={"tensor": "tensor-spec"}):
    """A column or a tensor.

    Attributes:
        type: Of a column's values; ``tensor`` for a tensor.
        name: None where it has none.
        tensor: Of a tensor.
    """

    type: str
    name: str | None = None
    tensor: TensorSpec | None = None

    @property
    def is_text(self) -> bool:
        """Whether it holds text."""
        if self.tensor is not None:
            return self.tensor.dtype in {"str", "object"} or self.tensor.dtype.startswith("<U")
        return self.type == TEXT_TYPE


def fields_of(text: str | None, what: str, where: str) -> tuple[Field, ...]:
    """Return what a JSON list of columns or tensors says; nothing for None.

    Args:
        text: The list.
        what: ``inputs`` or ``outputs``, for messages.
        where: The file, for messages.

    Raises:
        InvalidModel: It cannot be understood, mixes columns with tensors, or has columns that are neither
            numbers nor text.
    """
    if text is None:
        return ()
    try:
        fields = msgspec.json.decode(text, type=tuple[Field, ...])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidModel(f"{where}: the signature's {what} cannot be understood: {error}.") from error
    for field in fields:
        if (field.type == "tensor") != (field.tensor is not None) or (field.tensor is None) != (
            fields[0].tensor is None
        ):
            raise InvalidModel(f"{where}: the signature's {what} mix columns and tensors.")
        if field.tensor is None and field.type not in NUMBER_TYPES | {TEXT_TYPE}:
            raise InvalidModel(
                f"{where}: the signature's {what} have {field.name or 'a column'!r:.80} of type"
                f" {field.type!r:.40}; numbers and text are supported."
            )
    return fields


def apply_to_table(
    source: Source, columns: Columns, inputs: tuple[Field, ...], outputs: tuple[Field, ...], where: str
) -> Source:
    """Return a source that takes a table, its columns named by the signature.

    Args:
        source: From `open_sklearn`.
        columns: What it takes.
        inputs: The signature's; empty where nothing is said.
        outputs: The same.
        where: The file, for messages.

    Raises:
        InvalidModel: The signature has other columns than the model, or other types.
    """
    if source.signature.task == "regression":
        _check_values(source.signature.outputs[0], outputs, where)
    if not inputs:
        return source
    if inputs[0].tensor is not None:
        _check_table_tensor(columns, inputs, where)
        return source
    ordered = _in_table_order(columns, inputs, where)
    for position, field in enumerate(ordered):
        held = "text" if position in columns.texts else "numbers"
        if position not in columns.unused and field.is_text != (held == "text"):
            raise InvalidModel(
                f"{where}: column {field.name or position!r} is of type {field.type!r} in the signature; the"
                f" model takes {held} there."
            )
    if any(field.name is None for field in ordered):
        return source
    names = tuple(field.name or "" for field in ordered)
    named = {NUMBERS: columns.numbers, TEXT: columns.texts}
    tensors = tuple(
        tensor
        if len(tensor.shape) > 2
        else msgspec.structs.replace(tensor, columns=tuple(names[at] for at in named[tensor.name]))
        for tensor in source.signature.inputs
    )
    return replace(source, signature=msgspec.structs.replace(source.signature, inputs=tensors))


def apply_to_onnx(
    source: Source, inputs: tuple[Field, ...], outputs: tuple[Field, ...], where: str
) -> Source:
    """Return a source from an ONNX file, its columns named by the signature.

    Args:
        source: From `open_onnx`.
        inputs: The signature's; empty where nothing is said.
        outputs: The same.
        where: The file, for messages.

    Raises:
        InvalidModel: The signature has other inputs than the model, or other types or shapes.
    """
    tensors = source.signature.inputs
    known = {tensor.name: tensor for tensor in source.signature.outputs}
    for field in outputs:
        if field.tensor is not None and field.name in known:
            _check_tensor(known[field.name], field, where)
    if not inputs:
        return source
    if inputs[0].tensor is not None or len(tensors) > 1:
        for tensor, field in _paired(tensors, inputs, where):
            _check_tensor(tensor, field, where)
        return source
    return _with_columns(source, tensors[0], inputs, where)


def _with_columns(source: Source, tensor: Tensor, inputs: tuple[Field, ...], where: str) -> Source:
    if len(tensor.shape) != 2 or tensor.shape[1] not in (-1, len(inputs)):
        raise InvalidModel(
            f"{where}: the signature has {len(inputs)} columns; the model's input {tensor.name!r} has shape"
            f" {tensor.shape}."
        )
    for field in inputs:
        _check_kind(tensor, field, where)
    if any(field.name is None for field in inputs):
        return source
    named = msgspec.structs.replace(tensor, columns=tuple(field.name or "" for field in inputs))
    return replace(source, signature=msgspec.structs.replace(source.signature, inputs=(named,)))


def _paired(tensors: tuple[Tensor, ...], inputs: tuple[Field, ...], where: str) -> list[tuple[Tensor, Field]]:
    """Pair the model's inputs with the signature's: by name, or in order where the signature has no names."""
    named = {field.name: field for field in inputs if field.name is not None}
    if len(tensors) != len(inputs) or (
        named and len(tensors) > 1 and named.keys() != {t.name for t in tensors}
    ):
        raise InvalidModel(
            f"{where}: the signature has the inputs {_listed([field.name for field in inputs])}; the model"
            f" has {_listed([tensor.name for tensor in tensors])}."
        )
    if len(named) == len(tensors) > 1:
        return [(tensor, named[tensor.name]) for tensor in tensors]
    return list(zip(tensors, inputs, strict=True))


def _check_tensor(tensor: Tensor, field: Field, where: str) -> None:
    _check_kind(tensor, field, where)
    if field.tensor is not None and not _agree(tensor.shape, field.tensor.shape):
        raise InvalidModel(
            f"{where}: {tensor.name!r} has shape {field.tensor.shape} in the signature,"
            f" {tensor.shape} in the model."
        )


def _check_kind(tensor: Tensor, field: Field, where: str) -> None:
    if field.is_text != (tensor.dtype == "str"):
        kind = field.tensor.dtype if field.tensor is not None else field.type
        raise InvalidModel(
            f"{where}: {field.name or tensor.name!r} is of type {kind!r} in the signature; the model's"
            f" {tensor.name!r} is {tensor.dtype}."
        )


def _check_table_tensor(columns: Columns, inputs: tuple[Field, ...], where: str) -> None:
    spec = inputs[0].tensor
    assert spec is not None
    if len(inputs) != 1 or not _agree((-1, columns.count), spec.shape):
        raise InvalidModel(
            f"{where}: the signature's input has shape {spec.shape}; the model takes (-1, {columns.count})."
        )
    if columns.texts and not inputs[0].is_text:
        raise InvalidModel(
            f"{where}: the signature's input is {spec.dtype}; the model takes text in columns"
            f" {columns.called(columns.texts)}."
        )


def _check_values(values: Tensor, outputs: tuple[Field, ...], where: str) -> None:
    for field in outputs:
        shape = field.tensor.shape if field.tensor is not None else ()
        if len(shape) == 2 and not _agree(values.shape, shape):
            raise InvalidModel(
                f"{where}: the signature's output has shape {shape}; the model gives {values.shape}."
            )


def _in_table_order(columns: Columns, inputs: tuple[Field, ...], where: str) -> list[Field]:
    """Return the signature's columns in the order of the table that the estimator was fitted on."""
    named = {field.name: field for field in inputs if field.name is not None}
    if columns.names and len(named) == len(inputs):
        if missing := set(columns.names) - named.keys():
            raise InvalidModel(
                f"{where}: the signature lacks columns that the model takes: {_listed(missing)}."
            )
        return [named[name] for name in columns.names]
    if len(inputs) != columns.count:
        raise InvalidModel(
            f"{where}: the signature has {len(inputs)} columns; the model takes {columns.count}.",
            remedy="Log the model with a signature that was inferred from its training data.",
        )
    return list(inputs)


def _agree(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    pairs = zip(shape, other, strict=False)
    return len(shape) == len(other) and all(a == b or -1 in (a, b) for a, b in pairs)


def _listed(names: Iterable[str | None]) -> str:
    return ", ".join(repr(name) for name in sorted(names, key=str))[:200]
