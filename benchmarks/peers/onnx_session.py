"""The model in a peer's server: onnxruntime on one thread, as the agent runs it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

MODEL_VARIABLE = "BENCHMARK_MODEL"
"""Environment variable with the path of the model's file."""


class Session:
    """The model.

    Args:
        path: Of its file; by default as the environment says.
    """

    def __init__(self, path: str = "") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            path or os.environ[MODEL_VARIABLE], options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def answer(self, data: list[float], shape: list[int]) -> NDArray[Any]:
        """Return the output for an input as it came in JSON."""
        return self.run(np.array(data, dtype=np.float32).reshape(shape))

    def run(self, sample: NDArray[Any]) -> NDArray[Any]:
        """Return the output for an array."""
        output: NDArray[Any] = self._session.run(None, {self._input: sample})[0]
        return output
