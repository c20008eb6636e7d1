"""Golden inputs: the self-test that a device runs on its own runtime before it trusts a version.

Which inputs. Of a classification, for each class the right answer that the model is least sure of, because
probabilities near 0 or 1 hide faults and undecided ones show them; then the surest answer of all. Of any
other task, samples at evenly spaced ranks of the answer, from the least to the greatest. Then the corners of
the calibration data (each number at its least, and at its greatest), where quantized activations saturate;
text is taken from the first and the last sample. Where values may be missing, a sample that lacks one. If
rounding moves the undecided answers of a variant too far to test it by them, surer ones are tried.

Which tolerance. Processors and releases of a runtime differ in the order of additions and in fused
operators. The runtime's `rounding` says how far answers may move by that; the tolerance is `SAFETY` times as
much, and at least `FLOOR` for the exponential function of a softmax, in proportion to the scales of
`fleet.protocol.difference`. A model that needs more than `MAX_TOLERANCE` cannot be tested in this way and is
not packed. That much one step of a quantized logit may take: steps of 0.2 occur, the slope of an undecided
softmax is 1/4, and `SAFETY` doubles it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.data.batches import sample_count
from converters.data.samples import Inputs, Samples
from converters.judging.evaluate import choices, strangeness
from converters.runtimes.runtime import Runtime, Session
from fleet.protocol.errors import ConversionFailed
from fleet.protocol.manifest import Signature

MAX_GOLDEN_SIZE_BYTES = 1024**2
"""Golden inputs travel to every device: classes are dropped, the last first, where all do not fit."""

RANKS = 8
"""Samples of a task that has no classes."""

SURENESS = (0.0, 0.25, 0.5)
"""Tried in turn until every variant can be tested."""

SAFETY = 2.0
FLOOR = 1e-5
MAX_TOLERANCE = 0.1


class Expected(NamedTuple):
    """What one variant has to answer.

    Attributes:
        outputs: float32, shape (count, …).
        tolerance: Greatest difference that passes, see `fleet.protocol.difference`.
    """

    outputs: NDArray[np.float32]
    tolerance: float


def choose_golden_inputs(
    signature: Signature,
    held_out: Inputs,
    answers: NDArray[Any],
    samples: Samples,
    calibration: Inputs,
    *,
    sureness: float = 0.0,
) -> Inputs:
    """Choose the inputs, count of them.

    Args:
        signature: What the model takes and gives.
        held_out: N samples to choose from, as the model takes them.
        answers: The source's answers to them, shape (N, …).
        samples: The same samples, with their labels.
        calibration: Samples for the corners.
        sureness: Which right answer of a class: 0 for the least sure, up to 1 for the surest. Where rounding
            moves the least sure too far, a surer one still covers the class.
    """
    indices = _telling(signature, held_out, answers, samples, sureness)
    for tensor in signature.inputs:
        if tensor.missing:
            gaps = np.isnan(held_out[tensor.name].reshape(len(answers), -1)).any(axis=1)
            indices = [*np.flatnonzero(gaps)[:1].tolist(), *indices]
    chosen = {
        tensor.name: np.concatenate([_corners(calibration[tensor.name]), held_out[tensor.name][indices]])
        for tensor in signature.inputs
    }
    return _in_batches(_within_size(chosen), max(signature.inputs[0].shape[0], 1))


def expected_outputs(
    runtime: Runtime, session: Session, model: bytes, signature: Signature, golden: Inputs, *, seed: int
) -> Expected:
    """Return what a variant answers, and how far other processors may be from it.

    Args:
        runtime: What runs it.
        session: The variant, loaded.
        model: Its bytes.
        signature: What it takes and gives.
        golden: The golden inputs.
        seed: Of random changes, 0 to 2^32 - 1.

    Raises:
        ConversionFailed: The answers depend on rounding so much that no tolerance is of use.
    """
    outputs = np.asarray(session.run(golden), dtype=np.float32)
    spread = runtime.rounding(model, signature, golden, seed)
    tolerance = max(FLOOR, SAFETY * spread)
    if not tolerance <= MAX_TOLERANCE:
        raise ConversionFailed(
            f"Rounding alone changes the model's golden outputs by {spread:.3g} of their scale; a self-test"
            f" with a tolerance of {tolerance:.3g} would prove nothing.",
            remedy="Train with more samples or stronger regularization.",
        )
    return Expected(outputs, _rounded_up(tolerance))


def _telling(
    signature: Signature, held_out: Inputs, answers: NDArray[Any], samples: Samples, sureness: float
) -> list[int]:
    """Return the numbers of the samples that tell most."""
    task = signature.task
    if (chosen := choices(task, answers)) is not None:
        sure = answers.max(axis=1) if task == "classification" else -answers.min(axis=1)
        labels = chosen if task != "classification" or samples.labels is None else samples.labels
        of_class = [_of_class(members, chosen == labels, sure, sureness) for members in _by_class(labels)]
        return [int(sure.argmax()), *of_class]
    strange = strangeness(task, answers, held_out)
    rank_by = answers.reshape(len(answers), -1).mean(axis=1) if strange is None else strange
    order = np.argsort(rank_by, kind="stable")
    return [int(order[i]) for i in np.linspace(0, len(order) - 1, min(RANKS, len(order))).astype(int)]


def _of_class(
    members: NDArray[np.intp], right: NDArray[np.bool_], sure: NDArray[Any], sureness: float
) -> int:
    """Return a right answer among a class's members; a wrong one only where there is no right one."""
    among = members[right[members]] if right[members].any() else members
    order = among[np.argsort(sure[among], kind="stable")]
    return int(order[round(sureness * (len(order) - 1))])


def _by_class(labels: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _corners(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype == object:
        return values[[0, -1]]
    # fmin and fmax pass over missing values; a column without any value stays missing.
    return np.stack([np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)])


def _within_size(chosen: Inputs) -> Inputs:
    sample_size_bytes = sum(array[:1].nbytes for array in chosen.values())
    count = max(1, MAX_GOLDEN_SIZE_BYTES // max(1, sample_size_bytes))
    return {name: array[:count] for name, array in chosen.items()}


def _in_batches(chosen: Inputs, batch: int) -> Inputs:
    """Return whole batches, the last filled with its last sample, for models that take nothing else."""
    count = sample_count(chosen)
    filled = np.minimum(np.arange(-(-count // batch) * batch), count - 1)
    return {name: array[filled] for name, array in chosen.items()}


def _rounded_up(value: float) -> float:
    """Return the value rounded up to two significant digits, which people can read."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.2g}")
