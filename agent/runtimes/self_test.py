"""The self-test: a bundle's golden inputs through the device's real runtime.

The hub computed the golden outputs with the same variant; the device's runtime, version and processor must
agree with them within the tolerance that the manifest states.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.runtimes.protocol import LoadedModel
from fleet.protocol.errors import InferenceFailed, SelfTestFailed, StorageError
from fleet.protocol.manifest import Manifest, Tensor, Variant


def profiled_output(manifest: Manifest) -> Tensor:
    """Return the output that golden outputs and telemetry are about: the first floating one.

    Raises:
        SelfTestFailed: The model has none.
    """
    for tensor in manifest.signature.outputs:
        if tensor.dtype.startswith("float"):
            return tensor
    raise SelfTestFailed("The model has no floating-point output to compare.")


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
    inputs = golden_inputs(manifest, folder)
    output = profiled_output(manifest)
    try:
        answers = model.infer({manifest.signature.inputs[0].name: inputs})[output.name]
    except InferenceFailed as error:
        raise SelfTestFailed(f"The golden inputs cannot be computed: {error}") from error
    expected = _read(folder / variant.golden_outputs.name, np.dtype("<f4"), (manifest.golden_count, -1))
    answers = np.asarray(answers, dtype=np.float32).reshape(len(inputs), -1)
    if answers.shape != expected.shape:
        raise SelfTestFailed(f"The model answers with shape {answers.shape}, not {expected.shape}.")
    if not np.isfinite(answers).all():
        raise SelfTestFailed("The model answers golden inputs with values that are not finite.")
    difference = float(np.abs(answers - expected).max())
    if not difference <= variant.golden_tolerance:
        raise SelfTestFailed(
            f"Answers to the golden inputs differ by {difference:.3g}; "
            f"{variant.golden_tolerance:.3g} is allowed for {variant.name}."
        )


def golden_inputs(manifest: Manifest, folder: Path) -> NDArray[Any]:
    """Return the golden inputs, shape (golden_count, …).

    Raises:
        SelfTestFailed: The file does not hold them.
    """
    if len(manifest.signature.inputs) != 1:
        raise SelfTestFailed("This release runs models with exactly one input.")
    tensor = manifest.signature.inputs[0]
    try:
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
    except TypeError as error:
        raise SelfTestFailed(f"The input has an unknown element type {tensor.dtype!r:.40}.") from error
    shape = (manifest.golden_count, *tensor.shape[1:])
    return _read(folder / manifest.golden_inputs.name, dtype, shape).astype(
        np.dtype(tensor.dtype), copy=False
    )


def _read(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        return np.frombuffer(path.read_bytes(), dtype=dtype).reshape(shape)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise SelfTestFailed(f"{path.name} does not hold {shape[0]} samples of the stated shape.") from error
