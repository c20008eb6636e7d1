"""Existing ``.tflite`` files: registered as they are, after a look into them and a first run.

LiteRT does not verify files, so `converters.tflite.inspect` does before it sees one. What the file takes and
gives is read from it; what its output's shape really is, from a run.

A file for one size of batch stays so: the first dimension of its inputs is that number in the signature, and
whoever runs it gives that many samples at a time. Whole-number inputs and outputs of a quantized file are
left as they are too: the samples must hold such numbers, and answers are compared as such.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs
from converters.source import Precision, Source
from converters.sources.onnx_reading import read_file
from converters.sources.probes import MAX_PROBE_ELEMENTS, PROBES, TOLERANCE, alike, probes
from converters.sources.tasks import judged_signature
from converters.sources.tflite_trial import check_runs
from converters.tflite.inspect import MAX_SIZE_BYTES, TfliteModel, inspect_tflite
from converters.tflite.run import TfliteSession
from fleet.protocol.errors import ConversionFailed, InvalidModel, UnsupportedOperator
from fleet.protocol.manifest import Task, Tensor

_BATCH = 256


def open_tflite(
    path: Path, *, name: str = "", classes: tuple[str, ...] = (), task: Task | None = None
) -> Source:
    """Read a ``.tflite`` file.

    Args:
        path: The file.
        name: What to call it; the file's name if empty.
        classes: Names of the classes, in the order of the output's columns.
        task: What the model is for; guessed, with a caution, if None.

    Raises:
        NotFound: There is no such file.
        InvalidModel: It is not a TFLite file that can be used; the message says why.
        UnsupportedOperator: It needs an operator that LiteRT does not have.
    """
    name = name or path.name
    data = read_file(path, limit_bytes=MAX_SIZE_BYTES)
    _inspected(data, name)
    check_runs(data, name)
    seen = read_tflite(data, name)
    first = seen.outputs[0].name
    judged = judged_signature(name, seen.inputs, seen.outputs, seen.answers, task=task, classes=classes)

    def answer(given: Inputs) -> NDArray[Any]:
        return _run(seen.session, given, [first], seen.batch)[0].astype(np.float32)

    return Source(
        name=name,
        framework="TensorFlow Lite",
        signature=judged.signature,
        answer=answer,
        tflite=data,
        precision=_PRECISIONS[seen.model.quantization],
        sha256=hashlib.sha256(data).hexdigest(),
        cautions=(*_cautions(seen), *judged.cautions),
        libraries=("ai-edge-litert",),
    )


class SeenFile(NamedTuple):
    """What was seen of a file.

    Attributes:
        model: What it says of itself.
        session: The file, loaded.
        batch: Samples that it takes at once; 0 for any number.
        inputs: What it takes.
        outputs: What it really gives, the judged output first.
        answers: What that one answers to probes, shape (N, …).
    """

    model: TfliteModel
    session: TfliteSession
    batch: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    answers: NDArray[Any]


def read_tflite(data: bytes, name: str) -> SeenFile:
    """Inspect and run a file; of a file that is not trusted yet, see `tflite_trial`.

    Args:
        data: The file.
        name: What to call it in messages.

    Raises:
        InvalidModel: It cannot be used.
        UnsupportedOperator: It needs an operator that LiteRT does not have.
    """
    model = _inspected(data, name)
    batch = _checked_batch(model, name)
    session = _loaded(data, model, name)
    outputs, answers = _answered(session, model, batch, name)
    return SeenFile(model, session, batch, model.inputs, outputs, answers)


def _inspected(data: bytes, name: str) -> TfliteModel:
    try:
        return inspect_tflite(data)
    except InvalidModel as error:
        raise InvalidModel(f"{name}: {error.message}", remedy=error.remedy or "Convert it again.") from error


_PRECISIONS: dict[str, Precision] = {"fp32": "fp32", "fp16": "fp16", "int8": "int8", "dynamic-int8": "int8"}


def _checked_batch(model: TfliteModel, name: str) -> int:
    """Return how many samples a file takes at once; 0 for any number."""
    if not model.inputs or not model.outputs:
        raise InvalidModel(f"{name} has no inputs or no outputs.", remedy="Convert the model again.")
    for tensor in model.inputs:
        if not tensor.shape:
            raise InvalidModel(
                f"{name}: input {tensor.name!r:.80} is a single number without a dimension for the batch.",
                remedy="Make it a constant of the model.",
            )
        if -1 in tensor.shape[1:] or 0 in tensor.shape:
            raise InvalidModel(
                f"{name}: input {tensor.name!r:.80} has the open shape {tensor.shape}; only the first"
                " dimension, the batch, may be open.",
                remedy="Convert the model with fixed sizes.",
            )
        if max(tensor.shape[0], 1) * int(np.prod(tensor.shape[1:], dtype=object)) > MAX_PROBE_ELEMENTS:
            raise InvalidModel(
                f"{name}: input {tensor.name!r:.80} of shape {tensor.shape} has more elements than the"
                f" {MAX_PROBE_ELEMENTS} that are allowed."
            )
    batches = {max(tensor.shape[0], 0) for tensor in model.inputs}
    if len(batches) != 1:
        raise InvalidModel(
            f"{name}: the inputs' first dimensions differ ({sorted(batches)}), so they are no batch.",
            remedy="Convert the model with the batch as the first dimension of every input.",
        )
    return batches.pop()


def _loaded(data: bytes, model: TfliteModel, name: str) -> TfliteSession:
    try:
        return TfliteSession(data)
    except ConversionFailed as error:
        foreign = sorted({operator.name for operator in model.operators if operator.custom})
        if foreign:
            raise UnsupportedOperator(
                f"{name} needs operators that LiteRT does not have: {', '.join(foreign)}.",
                remedy="Convert the model with TFLite's own operators only.",
            ) from error
        raise InvalidModel(f"{name}: {error.message}", remedy="Convert the model again.") from error


def _answered(
    session: TfliteSession, model: TfliteModel, batch: int, name: str
) -> tuple[tuple[Tensor, ...], NDArray[Any]]:
    """Run a file; return its outputs as they really are, the judged one first, and what that one answers."""
    ordered = sorted(model.outputs, key=lambda tensor: np.dtype(_plain(tensor.dtype)).kind != "f")
    names = [tensor.name for tensor in ordered if tensor.dtype != "str"]
    if not names:
        raise InvalidModel(f"{name} has no output of numbers.")
    count = batch or PROBES
    given = probes(model.inputs, count)
    try:
        found = _run(session, given, names, batch)
        alone = _run(session, {tensor: values[:1] for tensor, values in given.items()}, names, batch)
    except ConversionFailed as error:
        raise InvalidModel(
            f"{name} fails on {count} samples: {error.message}", remedy="Convert the model again."
        ) from error
    outputs = []
    for output, answers, single in zip(names, found, alone, strict=True):
        if answers.shape[:1] != (count,) or single.shape[:1] != (1,) or answers.shape[1:] != single.shape[1:]:
            raise InvalidModel(
                f"{name}: output {output!r:.80} has shape {answers.shape} for {count} samples; its first"
                " dimension is not the batch.",
                remedy="Convert the model with the batch as the first dimension of every output.",
            )
        if not alike(answers[:1], single, TOLERANCE[_PRECISIONS[model.quantization]]):
            raise InvalidModel(
                f"{name}: output {output!r:.80} for a sample depends on what else is in its batch.",
                remedy="Convert the model so that samples do not influence each other.",
            )
        outputs.append(Tensor(output, str(answers.dtype), (batch or -1, *answers.shape[1:])))
    return tuple(outputs), found[0]


def _plain(dtype: str) -> str:
    return "object" if dtype == "str" else dtype


def _run(session: TfliteSession, inputs: Inputs, outputs: Sequence[str], batch: int) -> list[NDArray[Any]]:
    """Return outputs for any number of samples; a fixed batch is filled up with the last sample."""
    count, at_once = len(next(iter(inputs.values()))), batch or _BATCH
    parts = []
    for start in range(0, count, at_once):
        indices = np.arange(start, start + at_once)
        indices = np.minimum(indices, count - 1) if batch else indices[indices < count]
        answers = session.run({name: array[indices] for name, array in inputs.items()})
        parts.append([answers[name] for name in outputs])
    return [np.concatenate(arrays)[:count] for arrays in zip(*parts, strict=True)]


def _cautions(seen: SeenFile) -> list[str]:
    cautions = []
    if seen.model.quantization == "dynamic-int8":
        cautions.append(
            "It is quantized in dynamic range, which tflite-runtime computes wrongly: only LiteRT gets it."
        )
    if seen.batch:
        cautions.append(f"It takes {seen.batch} sample{'s' if seen.batch > 1 else ''} at a time.")
    whole = [
        f"{side} {tensor.name!r:.80} ({tensor.dtype})"
        for side, tensors in (("input", seen.inputs), ("output", seen.outputs[:1]))
        for tensor in tensors
        if tensor.dtype in {"int8", "uint8", "int16"}
    ]
    if whole:
        cautions.append(f"Not scaled to real numbers, but as the file has them: {', '.join(whole)}.")
    if len(seen.outputs) > 1:
        cautions.append(f"Of its {len(seen.outputs)} outputs only {seen.outputs[0].name!r:.80} is judged.")
    return cautions
