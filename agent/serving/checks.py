"""What a request's tensors have to be, whichever way they came: the rules of every local interface."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.finite import is_finite
from agent.runtimes.self_test import TEXT
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.manifest import Signature, Tensor


def check_names(found: Collection[str], wanted: Sequence[Tensor], does: str) -> None:
    """Check that tensors are named as the model names them, each once.

    Args:
        found: Names that came.
        wanted: The tensors.
        does: What the model does with them: "takes the inputs".

    Raises:
        InvalidMessage: They are not.
    """
    names = sorted(each.name for each in wanted)
    if sorted(found) != names:
        came = ", ".join(sorted(found)) or "none"
        raise InvalidMessage(f"The model {does} {', '.join(names)}; {came:.200} came.")


def check_shape(shape: Sequence[int], wanted: Tensor) -> None:
    """Check that an input has the shape that the model takes, and elements.

    Raises:
        InvalidMessage: It has another.
    """
    if (
        len(shape) != len(wanted.shape)
        or any(size < 1 for size in shape)
        or any(want not in (-1, size) for size, want in zip(shape, wanted.shape, strict=True))
    ):
        raise InvalidMessage(
            f"Input {wanted.name} has the shape {list(wanted.shape)}, not {list(shape)!r:.80}."
        )


def check_batches(sizes: Collection[int]) -> None:
    """Check that all inputs have as many samples.

    Raises:
        InvalidMessage: They have not.
    """
    if len(set(sizes)) > 1:
        raise InvalidMessage("The inputs have batches of different sizes.")


def check_values(values: NDArray[Any], wanted: Tensor) -> None:
    """Check that numbers are finite, or missing (NaN) where the model fills in missing values.

    Raises:
        InvalidMessage: They are not.
    """
    if not is_finite(values) and not (wanted.missing and not np.isinf(values).any()):
        raise InvalidMessage(f"Input {wanted.name} has values that are not finite.")


def check_inputs(inputs: Mapping[str, NDArray[Any]], signature: Signature) -> None:
    """Check all of that, and the types, for arrays of this process.

    Raises:
        InvalidMessage: The model does not take them.
    """
    check_names(inputs, signature.inputs, "takes the inputs")
    for wanted in signature.inputs:
        array = inputs[wanted.name]
        name = array.dtype.name
        if wanted.dtype == TEXT:
            fits = array.dtype.kind == "O" and all(isinstance(each, str) for each in array.flat)
        else:
            fits = name == wanted.dtype and array.dtype.isnative
        if not fits:
            raise InvalidMessage(f"Input {wanted.name} has elements of {wanted.dtype}, not of {name}.")
        check_shape(array.shape, wanted)
        check_values(array, wanted)
    check_batches([len(array) for array in inputs.values() if array.ndim])
