"""Golden inputs: the self-test that a device runs on its own runtime before it trusts a version.

Which inputs. For each class the right answer that the model is least sure of, because probabilities near
0 or 1 hide faults and undecided ones show them. Then the surest answer of all, and the two corners of the
training data (each element at its least, and at its greatest), where quantized activations saturate.

Which tolerance. Processors and releases of a runtime differ in the order of additions and in fused operators.
A dot product of n terms, computed in any order, is the exact dot product for weights that are changed by at
most γ = n·u / (1 - n·u), relatively, u = 2⁻²⁴ being the unit roundoff (Higham, "Accuracy and Stability of
Numerical Algorithms", 2nd ed., section 3.1). In an int8 model products of integers are exact everywhere (see
`converters.quantize`), but a value close to the border of two quantization steps may fall to the other side.
So every float constant of the graph is changed by random amounts, again and again, and the greatest change of
the answers is measured. The amounts go up to `REACH`·γ: whatever a real difference of γ could push over a
border is then pushed in most draws. The tolerance is `SAFETY` times the greatest change, and at least `FLOOR`
for the exponential function of the softmax. A model that needs more than `MAX_TOLERANCE` cannot be tested in
this way and is not packed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.dataset import Dataset
from converters.evaluate import answer
from fleet.protocol.errors import ConversionFailed

MAX_GOLDEN_SIZE_BYTES = 1024**2
"""Golden inputs travel to every device: classes are dropped, the last first, where all do not fit."""

UNIT_ROUNDOFF = 2.0**-24
DRAWS = 16
REACH = 16.0
SAFETY = 2.0
FLOOR = 1e-5
MAX_TOLERANCE = 0.05


class Expected(NamedTuple):
    """What one variant has to answer.

    Attributes:
        outputs: float32, shape (count, C).
        tolerance: Greatest absolute difference that passes.
    """

    outputs: NDArray[np.float32]
    tolerance: float


def choose_golden_inputs(
    held_out: Dataset, probabilities: NDArray[np.float32], training: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Choose the inputs, shape (count, …).

    Args:
        held_out: N samples to choose from.
        probabilities: The fp32 model's answers to them, shape (N, C).
        training: Samples of training, for the corners, shape (M, …).
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == held_out.labels
    # A wrong answer is chosen only where a class has no right one.
    doubt = np.where(right, confidence, confidence + 1.0)
    of_class = [
        int(indices[doubt[indices].argmin()])
        for label in range(len(held_out.classes))
        if (indices := np.flatnonzero(held_out.labels == label)).size
    ]
    corners = np.stack([training.min(axis=0), training.max(axis=0)])
    samples = held_out.features[[int(confidence.argmax()), *of_class]]
    chosen = np.concatenate([corners, samples])
    return chosen[: max(1, MAX_GOLDEN_SIZE_BYTES // chosen[0].nbytes)]


def expected_outputs(model: bytes, inputs: NDArray[np.float32], *, seed: int) -> Expected:
    """Return what a variant answers, and how far other processors may be from it.

    Args:
        model: The variant's ONNX model.
        inputs: The golden inputs, shape (count, …).
        seed: Of the random changes, 0 to 2^32 - 1.

    Raises:
        ConversionFailed: The answers depend on rounding so much that no tolerance is of use.
    """
    outputs = answer(model, inputs)
    spread = float(np.abs(answer(model, inputs, optimize=False) - outputs).max())
    random = np.random.RandomState(seed)
    for _ in range(DRAWS):
        changed = answer(_with_rounding_noise(model, random), inputs)
        spread = max(spread, float(np.abs(changed - outputs).max()))
    tolerance = max(FLOOR, SAFETY * spread)
    if tolerance > MAX_TOLERANCE:
        raise ConversionFailed(
            f"Rounding alone changes the model's golden outputs by {spread:.3g}; a self-test with a tolerance"
            f" of {tolerance:.3g} would prove nothing.",
            remedy="Train with more samples or stronger regularization.",
        )
    return Expected(outputs, _rounded_up(tolerance))


def _with_rounding_noise(model: bytes, random: np.random.RandomState) -> bytes:
    """Return the model with every float constant changed relatively by up to `REACH`·γ."""
    import onnx
    from onnx import TensorProto, numpy_helper

    changed = onnx.load_from_string(model)
    weights = [tensor.dims for tensor in changed.graph.initializer if len(tensor.dims) > 1]
    terms = max((math.prod(dims) // min(dims) for dims in weights), default=1)  # a bound for every layout
    noise = REACH * terms * UNIT_ROUNDOFF / (1.0 - terms * UNIT_ROUNDOFF)
    for tensor in changed.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            exact = numpy_helper.to_array(tensor)
            noisy = np.asarray(
                exact * random.uniform(1.0 - noise, 1.0 + noise, exact.shape), dtype=np.float32
            )
            tensor.CopyFrom(numpy_helper.from_array(noisy, tensor.name))
    return bytes(changed.SerializeToString())


def _rounded_up(value: float) -> float:
    """Return the value rounded up to two significant digits, which people can read."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.2g}")
