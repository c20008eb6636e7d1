"""Run an ONNX model on samples with onnxruntime, the runtime that devices use, and count right answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.dataset import Dataset
from converters.graph import INPUT, OUTPUT
from fleet.protocol.errors import ConversionFailed
from fleet.protocol.manifest import Evaluation

BATCH = 256


def answer(model: bytes, inputs: NDArray[np.float32], *, optimize: bool = True) -> NDArray[np.float32]:
    """Return the model's probabilities, shape (N, C).

    Args:
        model: An ONNX model as `converters.graph.tidy` makes it, or quantized from one.
        inputs: Shape (N, …).
        optimize: Let the runtime fuse operators, as devices do.

    Raises:
        ConversionFailed: The runtime cannot load or run the model, or it answers with something else than
            finite numbers.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # a different split over threads would be a different order of additions
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        answers = [_run(session, inputs[i : i + BATCH]) for i in range(0, len(inputs), BATCH)]
    except Exception as error:  # onnxruntime's errors have no root of their own
        raise ConversionFailed(f"onnxruntime cannot run the converted model: {error}.") from error
    probabilities = np.concatenate(answers)
    if not np.isfinite(probabilities).all():
        raise ConversionFailed("The model answers with values that are not finite.")
    return probabilities


def evaluate(probabilities: NDArray[np.float32], held_out: Dataset) -> Evaluation:
    """Return how many of the answers are right.

    Args:
        probabilities: The answers to the held-out samples, shape (N, C).
        held_out: Samples that training did not see, N of them.
    """
    right = probabilities.argmax(axis=1) == held_out.labels
    return Evaluation(accuracy=float(right.mean()), samples=len(held_out))


def _run(session: Any, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(session.run([OUTPUT], {INPUT: batch})[0], dtype=np.float32)
