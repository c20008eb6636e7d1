"""Probes: inputs that are always the same, to see how a model behaves; and when two models behave alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs
from converters.source import Precision
from fleet.protocol.manifest import Tensor

PROBES = 4
"""Samples, or as many more as make whole batches."""

MAX_PROBE_ELEMENTS = 2**24
"""Most elements of one sample; 64 MiB of float32."""

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 1e-1, "int4": 1e-2}
"""Of the greatest answer, for the same graph in another operator set or batch. An int8 graph that finds its
ranges while it runs finds other ones in another batch."""


def probes(tensors: Sequence[Tensor], count: int) -> Inputs:
    """Return inputs that are always the same, to see how a model behaves.

    Args:
        tensors: The model's inputs.
        count: N.

    Returns:
        For each an array of shape (N, …): floats of the standard normal distribution, whole numbers and truth
        values of 0 and 1, which are valid as indices too, and one letter as text.
    """
    random = np.random.RandomState(0)
    inputs: Inputs = {}
    for tensor in tensors:
        shape = (count, *tensor.shape[1:])
        if tensor.dtype == "str":
            inputs[tensor.name] = np.full(shape, "a", dtype=object)
        elif np.dtype(tensor.dtype).kind == "f":
            inputs[tensor.name] = random.standard_normal(shape).astype(tensor.dtype)
        else:
            inputs[tensor.name] = random.randint(0, 2, shape).astype(tensor.dtype)
    return inputs


def alike(found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> bool:
    """Return whether answers are the same.

    Args:
        found: Answers.
        expected: What they should be; what is not finite there has to be the same.
        tolerance: Greatest difference, in proportion to the greatest finite answer where that is over 1.
    """
    if found.shape != expected.shape:
        return False
    scale = float(np.max(np.abs(expected[np.isfinite(expected)]), initial=1.0))
    return bool(np.allclose(found, expected, rtol=0, atol=tolerance * scale, equal_nan=True))
