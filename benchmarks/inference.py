"""Model files, run on one thread: ``.onnx`` by onnxruntime, ``.tflite`` by LiteRT, one sample at a time.

A converter may have turned images from NCHW, as ONNX has them, to NHWC: then the sample is turned beforehand,
which is no part of what is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import Metric

Array = NDArray[np.float32]
Answer = Callable[[Array], Array]
"""Takes one sample, shape (1, …), as the file wants it; returns the output, shape (1, …)."""


class ModelFile:
    """A model's file, loaded.

    Attributes:
        size_bytes: Of the file.
        runtime: What runs it.
    """

    def __init__(self, path: Path) -> None:
        self.size_bytes = path.stat().st_size
        self.runtime = "LiteRT" if path.suffix == ".tflite" else "ORT"
        self.answer, self._shape = (_litert if path.suffix == ".tflite" else _onnxruntime)(path)

    def as_wanted(self, sample: Array) -> Array:
        """Return a sample, shape (1, …) with an image's channels first, in the shape of the file's input.

        Raises:
            ValueError: The file has an input of another shape.
        """
        if self._shape == sample.shape[1:]:
            return sample
        turned = np.moveaxis(sample, 1, -1)
        if self._shape != turned.shape[1:]:
            raise ValueError(f"the input has shape {self._shape}, a sample {sample.shape[1:]}")
        return np.ascontiguousarray(turned)

    def answers(self, samples: Array) -> Array:
        """Return the outputs for samples, shape (N, …)."""
        return np.concatenate([self.answer(self.as_wanted(sample[None])).copy() for sample in samples])


def _onnxruntime(path: Path) -> tuple[Answer, tuple[int, ...]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()

    def answer(sample: Array) -> Array:
        output: Array = session.run(None, {given.name: sample})[0]
        return output

    return answer, tuple(given.shape[1:])


def _litert(path: Path) -> tuple[Answer, tuple[int, ...]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    [given], [gives] = interpreter.get_input_details(), interpreter.get_output_details()
    if given["dtype"] != np.float32 or gives["dtype"] != np.float32:
        raise ValueError("the file does not take and give float32")
    interpreter.resize_tensor_input(given["index"], [1, *given["shape"][1:]])
    interpreter.allocate_tensors()

    def answer(sample: Array) -> Array:
        interpreter.set_tensor(given["index"], sample)
        interpreter.invoke()
        output: Array = interpreter.get_tensor(gives["index"])
        return output

    return answer, tuple(int(size) for size in given["shape"][1:])


def points(metric: Metric, answers: Array, samples: Array, labels: NDArray[Any]) -> float:
    """Return how good answers are, in points of 0 to 100: accuracy in percent, or a hundred times the AUROC.

    Args:
        metric: See `benchmarks.models`.
        answers: Shape (N, …).
        samples: What was answered, shape (N, …).
        labels: Class of each sample, or 1 for an anomaly, shape (N,).
    """
    if metric == "accuracy":
        return 100 * float(np.mean(answers.argmax(axis=1) == labels))
    errors = np.square(answers - samples).reshape(len(samples), -1).mean(axis=1, dtype=np.float64)
    strange, normal = errors[labels == 1][:, None], errors[labels == 0][None]
    return 100 * float(np.mean((strange > normal) + 0.5 * (strange == normal)))
