"""Small ONNX graphs, and the comparison of what they answer as TFLite with what onnxruntime answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, shape_inference

from converters.tflite.emit import emit_tflite
from converters.tflite.inspect import inspect_tflite
from converters.tflite.run import TfliteSession
from tests.support import onnx_models

OPSET = 17
BATCHES = (1, 7, 32)
TOLERANCE = 3e-5
Dimension = int | str
Inputs = dict[str, NDArray[Any]]


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[Dimension]],
    constants: Mapping[str, NDArray[Any]] | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    output_type: int = TensorProto.FLOAT,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Return a model; ``N`` is the open batch of an input's shape."""
    return shape_inference.infer_shapes(
        onnx_models.model(
            nodes,
            [onnx_models.value(name, shape) for name, shape in inputs.items()],
            [onnx_models.value(name, None, output_type) for name in outputs],
            constants,
            opset=opset,
        )
    )


def weights(seed: int, *shape: int) -> NDArray[np.float32]:
    """Return reproducible normal numbers."""
    return np.asarray(np.random.RandomState(seed).randn(*shape) * 0.3, dtype=np.float32)


def samples(model: onnx.ModelProto, batch: int, *, seed: int = 0) -> Inputs:
    """Return reproducible normal inputs."""
    random = np.random.RandomState(seed)
    return {
        value.name: random.randn(
            *(dim.dim_value or batch for dim in value.type.tensor_type.shape.dim)
        ).astype(np.float32)
        for value in model.graph.input
    }


def onnx_answers(model: onnx.ModelProto, inputs: Inputs) -> Inputs:
    """Return what onnxruntime answers, by output."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def assert_same_answers(model: onnx.ModelProto, *, tolerance: float = TOLERANCE) -> bytes:
    """Convert a model, compare it with onnxruntime for several batches, and return the TFLite file."""
    data = emit_tflite(model)
    session = TfliteSession(data)
    opened = any(not value.type.tensor_type.shape.dim[0].dim_value for value in model.graph.input)
    for batch in BATCHES if opened else (1,):
        inputs = samples(model, batch, seed=batch)
        wanted, found = onnx_answers(model, inputs), session.run(inputs)
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
            np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance)
    return data


def operators(data: bytes) -> list[str]:
    """Return the kinds of operators in a TFLite file, each as often as it occurs."""
    return [operator.name for operator in inspect_tflite(data).operators for _ in range(operator.count)]
