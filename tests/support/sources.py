"""Sources under test: what their graphs answer, and whether they answer so themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from converters.data.samples import Inputs
from converters.source import Source


def run(source: Source, inputs: Inputs) -> NDArray[Any]:
    assert source.onnx is not None
    session = onnxruntime.InferenceSession(source.onnx, providers=["CPUExecutionProvider"])
    answer: NDArray[Any] = session.run([source.signature.outputs[0].name], inputs)[0]
    return answer


def assert_parity(source: Source, inputs: Inputs, tolerance: float = 1e-4) -> None:
    given, expected = run(source, inputs), source.answer(inputs)
    assert given.dtype == expected.dtype == np.float32
    assert given.shape == (len(expected), source.signature.outputs[0].shape[1])
    np.testing.assert_allclose(given, expected, atol=tolerance)
