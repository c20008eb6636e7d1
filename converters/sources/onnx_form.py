"""Bring a plain ONNX model into the form that all conversions start from, with the same answers.

The form: any number of samples, an operator set that the targets know, the lowest IR version. Operator sets
older than `OPSET` are upgraded by ``onnx.version_converter``; newer than 21 are brought down to 21, which
every device runs, or kept if that cannot be done: then `minimum_onnxruntime` says what the model needs.
Control flow (If, Loop, Scan) is kept, as onnxruntime runs it.

Each of these changes may change answers, and the file's own are the measure: the graph as it came is run on
probes, sample by sample (or as many at a time as it is fixed to), and a changed graph is taken only if it
answers the same to all of them at once and to one alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs
from converters.graphs.naming import name_nodes
from converters.graphs.versions import (
    NEWEST_OPSET_EVERYWHERE,
    OPSET,
    lowest_ir_version,
    minimum_onnxruntime,
    opset_of,
)
from converters.source import Precision
from converters.sources.onnx_batch import dtype_name, input_tensors, open_batch, state_outputs
from converters.sources.onnx_session import OnnxSession
from converters.sources.probes import PROBES, TOLERANCE, alike, probes
from fleet.protocol.errors import ConversionFailed, InvalidModel
from fleet.protocol.manifest import Tensor

if TYPE_CHECKING:
    import onnx

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Original:
    """A model as it came, and what it does.

    Attributes:
        name: What to call it in messages.
        model: In the plain form.
        session: The model, loaded.
        inputs: What it takes.
        batch: Samples that it takes at once; 0 for any number.
        probes: Inputs for some samples.
        answers: All its outputs for them, each of shape (N, …).
    """

    name: str
    model: onnx.ModelProto
    session: OnnxSession
    inputs: tuple[Tensor, ...]
    batch: int
    probes: Inputs
    answers: list[NDArray[Any]]

    def answer(self, inputs: Inputs) -> NDArray[Any]:
        """Return its first output for any number of samples, float32."""
        first = self.model.graph.output[0].name
        outputs = _run(self.session, inputs, [first], self.batch or _BATCH, fill=self.batch > 0)
        return outputs[0].astype(np.float32)


class Formed(NamedTuple):
    """A model in the form.

    Attributes:
        model: The graph.
        outputs: What it gives, -1 for the batch.
    """

    model: onnx.ModelProto
    outputs: tuple[Tensor, ...]


def run_original(model: onnx.ModelProto, name: str) -> Original:
    """Load a model and see what it answers.

    Args:
        model: In the plain form.
        name: What to call it in messages.

    Raises:
        InvalidModel: It does not load or run, or its shapes are not those of a batch.
    """
    inputs, batch = input_tensors(model, name)
    session = OnnxSession(model, name)
    at_once = max(batch, 1)
    given = probes(inputs, at_once * -(-PROBES // at_once))
    answers = _run(session, given, [value.name for value in model.graph.output], at_once, fill=False)
    return Original(name, model, session, inputs, batch, given, answers)


def brought_into_form(original: Original, precision: Precision) -> Formed:
    """Return the model in the form, answering as the original does.

    Args:
        original: The model as it came.
        precision: Of its weights; says how close answers must be.

    Raises:
        InvalidModel: It does not answer to each sample of a batch as if it were alone.
        ConversionFailed: Its operator set cannot be converted.
    """
    failure: InvalidModel | None = None
    for model in _in_known_opsets(original):
        for reshapes in (False, True):
            opened = open_batch(model, reshapes=reshapes, batch=max(original.batch, 1))
            try:
                return _checked(opened, original, TOLERANCE[precision])
            except InvalidModel as error:
                failure = failure or error
    raise failure or InvalidModel(f"{original.name} has no usable form.")


def _in_known_opsets(original: Original) -> Iterator[onnx.ModelProto]:
    """Yield the model in operator sets that targets know, the one for most devices first."""
    opset = opset_of(original.model)
    if OPSET <= opset <= NEWEST_OPSET_EVERYWHERE:
        yield original.model
        return
    wanted = OPSET if opset < OPSET else NEWEST_OPSET_EVERYWHERE
    try:
        yield _converted(original.model, wanted)
    except Exception as error:  # errors of the C++ library have no root of their own
        if opset < wanted:
            raise ConversionFailed(
                f"{original.name} has operator set {opset}, which cannot be upgraded to {wanted}:"
                f" {str(error).strip():.300}.",
                remedy=f"Export the model again with operator set {wanted} or newer.",
            ) from error
    if opset > wanted:
        minimum_onnxruntime(original.model)
        yield original.model


def _converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    from onnx import version_converter

    converted = version_converter.convert_version(model, opset)
    name_nodes(converted)
    return converted


def _checked(model: onnx.ModelProto, original: Original, tolerance: float) -> Formed:
    """Return a changed model with the outputs' shapes, if it is valid and answers as the original does.

    Raises:
        InvalidModel: It does not.
    """
    from onnx import checker

    names = [value.name for value in model.graph.output]
    session = OnnxSession(model, original.name)
    together = session.run(original.probes, names)
    alone = session.run({name: array[:1] for name, array in original.probes.items()}, names)
    _compare(together, alone, original, tolerance)
    count = len(next(iter(original.probes.values())))
    outputs = tuple(
        Tensor(value.name, dtype_name(value), _shape(value.name, a.shape, b.shape, count, original.name))
        for value, a, b in zip(model.graph.output, together, alone, strict=True)
    )
    state_outputs(model, outputs)
    model.ir_version = lowest_ir_version(model)
    try:
        checker.check_model(model, full_check=True)
    except Exception as error:  # errors of the C++ library have no root of their own
        raise InvalidModel(
            f"{original.name} does not work for any number of samples: {str(error).strip():.300}.",
            remedy="Export it with a symbolic batch as the first dimension of every input.",
        ) from error
    return Formed(model, outputs)


def _compare(
    together: list[NDArray[Any]], alone: list[NDArray[Any]], original: Original, tolerance: float
) -> None:
    count = len(next(iter(original.probes.values())))
    for value, batch, single, expected in zip(
        original.model.graph.output, together, alone, original.answers, strict=True
    ):
        if not (alike(batch, expected, tolerance) and alike(single, expected[:1], tolerance)):
            raise InvalidModel(
                f"{original.name}: output {value.name!r:.80} for {count} samples at once, {batch.shape}, is"
                f" not what the model answers to them one after the other, {expected.shape}.",
                remedy="Export it with a symbolic batch as the first dimension of every input and output, in"
                f" which samples do not influence each other, and with operator set {OPSET} to"
                f" {NEWEST_OPSET_EVERYWHERE}.",
            )


def _shape(
    output: str, together: tuple[int, ...], alone: tuple[int, ...], count: int, name: str
) -> tuple[int, ...]:
    """Return an output's shape from that for ``count`` samples and that for one."""
    if not together or together[0] != count or alone[0] != 1 or together[1:] != alone[1:]:
        raise InvalidModel(
            f"{name}: output {output!r:.80} has shape {alone} for one sample and {together} for {count}; its"
            " first dimension is not the batch.",
            remedy="Export it with the batch as the first dimension of every output.",
        )
    return (-1, *together[1:])


def _run(
    session: OnnxSession, inputs: Inputs, outputs: list[str], batch: int, *, fill: bool
) -> list[NDArray[Any]]:
    """Return the outputs for all samples, so many at a time; a last batch may have to be filled up."""
    count = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, count, batch):
        indices = np.arange(start, start + batch)
        indices = np.minimum(indices, count - 1) if fill else indices[indices < count]
        parts.append(session.run({name: array[indices] for name, array in inputs.items()}, outputs))
    return [_joined(arrays, count) for arrays in zip(*parts, strict=True)]


def _joined(arrays: tuple[NDArray[Any], ...], count: int) -> NDArray[Any]:
    if any(array.ndim == 0 for array in arrays):
        return arrays[0]
    return np.concatenate(arrays)[:count]
