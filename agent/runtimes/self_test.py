"""The self-test: a bundle's golden inputs through the device's real runtime.

The hub computed the golden outputs with the same variant; the device's runtime, version and processor must
agree with them within the tolerance that the manifest states. Golden outputs are those of the model's first
output, whatever its rank.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.runtimes.protocol import LoadedModel, Tensors
from fleet.protocol.difference import scaled_differences
from fleet.protocol.errors import InferenceFailed, InvalidMessage, SelfTestFailed, StorageError
from fleet.protocol.manifest import File, Manifest, Tensor, Variant
from fleet.protocol.text import decode_text

TEXT = "str"
"""The element type of text."""


def run_self_test(model: LoadedModel, manifest: Manifest, variant: Variant, folder: Path) -> None:
    """Compare the model's answers to the golden inputs with the golden outputs.

    Args:
        model: The variant in memory.
        manifest: Describes the tensors.
        variant: States outputs and tolerance.
        folder: Where the verified files of the bundle are.

    Raises:
        SelfTestFailed: The answers differ, are not finite, or cannot be computed.
    """
    if manifest.signature.outputs[0].dtype == TEXT:
        raise SelfTestFailed("The model's first output is text, which has no golden outputs.")
    answers = _answers(model, manifest, golden_inputs(manifest, folder))
    expected = _numbers(folder / variant.golden_outputs.name, np.dtype("<f4"), (manifest.golden_count, -1))
    if answers.shape != expected.shape:
        raise SelfTestFailed(f"The model answers with shape {answers.shape}, not {expected.shape}.")
    if not np.isfinite(answers).all():
        raise SelfTestFailed("The model answers golden inputs with values that are not finite.")
    difference = float(scaled_differences(answers, expected).max())
    if not difference <= variant.golden_tolerance:
        raise SelfTestFailed(
            f"Answers to the golden inputs differ by {difference:.3g} of their scale; "
            f"{variant.golden_tolerance:.3g} is allowed for {variant.name}."
        )


def golden_inputs(manifest: Manifest, folder: Path) -> dict[str, NDArray[Any]]:
    """Return the golden inputs by name, each of shape (golden_count, …).

    Raises:
        SelfTestFailed: The files do not hold them.
    """
    tensors = zip(manifest.signature.inputs, manifest.golden_inputs, strict=True)
    return {tensor.name: _golden(tensor, file, manifest.golden_count, folder) for tensor, file in tensors}


def _answers(model: LoadedModel, manifest: Manifest, inputs: Tensors) -> NDArray[np.float32]:
    """Return the first output for all golden inputs, a row for each, shape (golden_count, elements).

    A model that takes only one size of batch gets them in batches of that size.
    """
    count = manifest.golden_count
    size = max([tensor.shape[0] for tensor in manifest.signature.inputs if tensor.shape], default=-1)
    size = size if size > 0 else count
    rows = []
    for start in range(0, count, size):
        batch = {name: values[start : start + size] for name, values in inputs.items()}
        try:
            answer = np.asarray(model.infer(batch)[manifest.signature.outputs[0].name], dtype=np.float32)
        except InferenceFailed as error:
            raise SelfTestFailed(f"The golden inputs cannot be computed: {error}") from error
        samples = min(size, count - start)
        if answer.shape[:1] != (samples,):
            raise SelfTestFailed(f"The model answers {samples} samples with the shape {answer.shape}.")
        rows.append(answer.reshape(samples, -1))
    return np.concatenate(rows)


def _golden(tensor: Tensor, file: File, count: int, folder: Path) -> NDArray[Any]:
    path, shape = folder / file.name, (count, *tensor.shape[1:])
    if tensor.dtype == TEXT:
        try:
            return decode_text(_bytes(path), shape)
        except InvalidMessage as error:
            raise SelfTestFailed(f"{path.name} does not hold {count} samples of text: {error}") from error
    try:
        dtype = np.dtype(tensor.dtype)
    except TypeError as error:
        raise SelfTestFailed(f"An input has an unknown element type {tensor.dtype!r:.40}.") from error
    return _numbers(path, dtype.newbyteorder("<"), shape).astype(dtype, copy=False)


def _numbers(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        return np.frombuffer(_bytes(path), dtype=dtype).reshape(shape)
    except ValueError as error:
        raise SelfTestFailed(f"{path.name} does not hold {shape[0]} samples of the stated shape.") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
