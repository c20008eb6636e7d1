"""``onnx-int4``: weights of matrix products in 4 bits, arithmetic in float (``com.microsoft.MatMulNBits``).

Each output's weights are cut into blocks of `BLOCK`, and each block has a scale s and a zero point z of its
own: w ≈ s·(q - z), q from 0 to 15, s = (max - min) / 15 with 0 between min and max, z = round(-min / s). A
weight costs 4 + 32 / 32 + 4 / 32 ≈ 5.1 bits. What the operator takes (onnxruntime,
``docs/ContribOperators.md``), for a product of K inputs and N outputs with B = ⌈K / `BLOCK`⌉ blocks::

    B            uint8 (N, B, BLOCK / 2)    two q a byte, the first in the low bits; padded with z
    scales       float32 (N·B,)
    zero_points  uint8 (N·⌈B / 2⌉,)         packed in the same way, each output's padded to a byte

onnxruntime's own quantizer only looks at MatMul: a graph of Gemm comes back unchanged, without a word. So
Gemm is split first, and a graph in which nothing changed, or that did not become smaller, is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.graphs.naming import name_nodes
from converters.graphs.onnx_graph import initializers, parsed
from converters.graphs.rewrite import drop_unused_constants, split_gemms, store_constants
from converters.runtimes.onnx import ONNXRUNTIME
from converters.target import Target, Work
from fleet.protocol.errors import ConversionFailed

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

BLOCK = 32
DOMAIN = "com.microsoft"
_GREATEST = 15


class Blocks(NamedTuple):
    """Weights in 4 bits, as the head of this file lays them out.

    Attributes:
        packed: uint8, shape (N, B, BLOCK / 2).
        scales: float32, shape (N·B,).
        zero_points: uint8, shape (N·⌈B / 2⌉,).
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8]


def build(work: Work) -> bytes:
    """Return the graph with the weights of matrix products in 4 bits.

    Raises:
        ConversionFailed: It has no such weights, or would not become smaller.
    """
    from onnx import helper

    model = parsed(work.onnx)
    name_nodes(model)
    store_constants(model)
    split_gemms(model)
    constants = initializers(model.graph)
    suitable = [node for node in model.graph.node if _suits(node, constants)]
    chosen = [node for node in suitable if node.name not in work.keep_float]
    if not chosen:
        raise ConversionFailed(
            "Only the weights of matrix products (MatMul, Gemm) are stored in 4 bits, and the model has none"
            " that may be: int4 would change nothing.",
            remedy="Pack the model as onnx-int8, which quantizes convolutions too.",
        )
    for node in chosen:
        _quantize(model.graph, node, constants[node.input[1]])
    drop_unused_constants(model)
    if all(imported.domain != DOMAIN for imported in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    data = bytes(model.SerializeToString(deterministic=True))
    if len(data) >= len(work.onnx):
        raise ConversionFailed(
            f"With 4-bit weights the model has {len(data)} bytes, as fp32 {len(work.onnx)}: a loss.",
            remedy="Pack the model as fp32.",
        )
    return data


def quantized_blocks(weights: NDArray[np.float32]) -> Blocks:
    """Return weights in 4 bits.

    Args:
        weights: Shape (K, N).
    """
    inputs, outputs = weights.shape
    count = -(-inputs // BLOCK)
    padded = np.zeros((outputs, count * BLOCK), dtype=np.float32)
    padded[:, :inputs] = weights.T
    blocks = padded.reshape(outputs, count, BLOCK)
    lowest = np.minimum(blocks.min(axis=2), 0.0)
    scales = (np.maximum(blocks.max(axis=2), 0.0) - lowest) / np.float32(_GREATEST)
    divisors = np.where(scales > 0, scales, np.float32(1.0))
    zeros = np.rint(-lowest / divisors)
    levels = np.clip(np.rint(blocks / divisors[:, :, None]) + zeros[:, :, None], 0, _GREATEST)
    if count % 2:
        zeros = np.pad(zeros, ((0, 0), (0, 1)))
    return Blocks(_pairs(levels), scales.reshape(-1), _pairs(zeros).reshape(-1))


def _pairs(values: NDArray[Any]) -> NDArray[np.uint8]:
    whole = values.astype(np.uint8)
    return np.asarray(whole[..., 0::2] | whole[..., 1::2] << 4, dtype=np.uint8)


def _suits(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    from onnx import TensorProto

    if node.op_type != "MatMul" or node.domain:
        return False
    weights = constants.get(node.input[1])
    return weights is not None and weights.data_type == TensorProto.FLOAT and len(weights.dims) == 2


def _quantize(graph: Any, node: NodeProto, weights: TensorProto) -> None:
    """Turn a MatMul into MatMulNBits; nodes with the same weights share their blocks."""
    from onnx import helper, numpy_helper

    inputs, outputs = weights.dims
    names = [f"{weights.name}_{part}" for part in Blocks._fields]
    if names[0] not in {tensor.name for tensor in graph.initializer}:
        values = quantized_blocks(numpy_helper.to_array(weights))
        arrays: list[NDArray[Any]] = [values.packed, values.scales, values.zero_points]
        graph.initializer.extend(map(numpy_helper.from_array, arrays, names))
    node.op_type, node.domain = "MatMulNBits", DOMAIN
    node.input[1:] = names
    options = {"K": inputs, "N": outputs, "bits": 4, "block_size": BLOCK}
    node.attribute.extend(helper.make_attribute(name, value) for name, value in options.items())


TARGET = Target("onnx-int4", "int4", ONNXRUNTIME, "model.onnx", calibrated=False, build=build)
