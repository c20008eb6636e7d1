"""The models that servers are compared on: three classifiers with random weights, fixed seeds.

======  =================================================  =================  ==============================
name    layers                                             input              what it shows
======  =================================================  =================  ==============================
mlp     dense 64-64-10                                     64 floats          what a request costs
cnn     one convolution, mean over the image, one dense    3×96×96: 110 KB    what its bytes cost
heavy   dense 512-2048-2048-2048-10, 38 MB of weights      512 floats         what is left of that beside
                                                                              a model of over 1 ms
======  =================================================  =================  ==============================

How good they are does not matter here, only what they cost. All end in a softmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[np.float32]

INPUT, OUTPUT, CLASSES = "features", "probabilities", 10
_OPSETS = [helper.make_opsetid("", 17)]


@dataclass(frozen=True)
class Model:
    """One of the models.

    Attributes:
        name: See the head of this file.
        shape: Of one sample.
        convolution: Channels of the first layer; 0 without one.
        dense: Sizes of the layers that follow, the last is the number of classes.
    """

    name: str
    shape: tuple[int, ...]
    convolution: int
    dense: tuple[int, ...]

    def onnx(self) -> bytes:
        """Return the model's file."""
        rng = np.random.default_rng(0)
        nodes: list[NodeProto] = []
        weights: dict[str, Array] = {}
        last, size = INPUT, self.shape[0]
        if self.convolution:
            weights["kernel"] = rng.normal(0, 0.2, (self.convolution, size, 3, 3)).astype(np.float32)
            nodes += [
                helper.make_node("Conv", [INPUT, "kernel"], ["maps"], strides=[2, 2], pads=[1, 1, 1, 1]),
                helper.make_node("Relu", ["maps"], ["active"]),
                helper.make_node("GlobalAveragePool", ["active"], ["means"]),
                helper.make_node("Flatten", ["means"], ["flat"]),
            ]
            last, size = "flat", self.convolution
        for number, width in enumerate(self.dense):
            given, weight, bias = last, f"weight{number}", f"bias{number}"
            weights[weight] = rng.normal(0, size**-0.5, (size, width)).astype(np.float32)
            weights[bias] = np.zeros(width, np.float32)
            last = f"dense{number}"
            nodes.append(helper.make_node("Gemm", [given, weight, bias], [last]))
            if width != self.dense[-1]:
                nodes.append(helper.make_node("Relu", [last], [f"{last}_active"]))
                last = f"{last}_active"
            size = width
        nodes.append(helper.make_node("Softmax", [last], [OUTPUT], axis=1))
        graph = helper.make_graph(
            nodes,
            self.name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", *self.shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", CLASSES])],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=_OPSETS, ir_version=8)
        onnx.checker.check_model(model)
        data: bytes = model.SerializeToString()
        return data

    def samples(self, count: int) -> Array:
        """Return inputs, shape (count, …), between 0 and 1 as images are, with eight bits as cameras give."""
        levels = np.random.default_rng(1).integers(0, 256, (count, *self.shape))
        return (levels / 255).astype(np.float32)


MODELS = (
    Model("mlp", (64,), 0, (64, CLASSES)),
    Model("cnn", (3, 96, 96), 80, (CLASSES,)),
    Model("heavy", (512,), 0, (2048, 2048, 2048, CLASSES)),
)


def tensor(sample: Array) -> dict[str, Any]:
    """Return the head of an input tensor of one sample in the Open Inference Protocol's form.

    Args:
        sample: Shape (1, …).
    """
    shape: Sequence[int] = sample.shape
    return {"name": INPUT, "shape": list(shape), "datatype": "FP32"}
