"""Matrix products: MatMul and Gemm as FULLY_CONNECTED where the right side is constant, else BATCH_MATMUL.

FULLY_CONNECTED computes x · Wᵀ + b with W of shape (outputs, inputs). It always gets a bias, of zeros where
ONNX has none: a product without one needs operator version 6, one with a bias runs on every runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.tflite.graph import Tensor
from converters.tflite.layout import Emission
from converters.tflite.node import Node
from converters.tflite.operators.elementwise import FLOAT, require_dtype

B = schema.BuiltinOperator
MAX_RANK = 4


def fully_connected(
    emission: Emission, node: Node, tensor: Tensor, weights: NDArray[Any], *, bias: NDArray[Any], name: str
) -> Tensor:
    """Return tensor · weightsᵀ + bias.

    Args:
        emission: The graph under way.
        node: The node on whose behalf it is emitted; its second input names the weights.
        tensor: Shape (…, inputs), plain.
        weights: Shape (outputs, inputs).
        bias: Shape (outputs,).
        name: Name of the result.
    """
    options = schema.FullyConnectedOptionsT()
    options.keepNumDims = len(tensor.shape) > 2
    constants = [
        emission.const(node.inputs[1], weights.astype(np.float32)),
        emission.const(f"{name};bias", bias.astype(np.float32)),
    ]
    shape = (*tensor.shape[:-1], len(weights))
    return emission.emit(B.FULLY_CONNECTED, [tensor, *constants], name, shape, options)


def _matmul(emission: Emission, node: Node) -> None:
    _require_float(emission, node)
    left, right = (emission.fact(name) for name in node.inputs)
    if right.value is not None and right.value.ndim == 2 and 2 <= len(left.shape) <= MAX_RANK:
        weights = right.value.T
        tensor = emission.get(node, node.inputs[0])
        bias = np.zeros(len(weights), dtype=np.float32)
        result = fully_connected(emission, node, tensor, weights, bias=bias, name=node.outputs[0])
        return emission.put(node, result)
    return emission.put(node, _batch_matmul(emission, node, node.outputs[0]))


def _batch_matmul(
    emission: Emission,
    node: Node,
    name: str,
    *,
    left_transposed: bool = False,
    right_transposed: bool = False,
) -> Tensor:
    shapes = [emission.fact(input_name).shape for input_name in node.inputs[:2]]
    if any(not 2 <= len(shape) <= MAX_RANK for shape in shapes):
        raise node.unsupported(f"only products of 2 to {MAX_RANK} dimensions are possible")
    options = schema.BatchMatMulOptionsT()
    options.adjX, options.adjY = left_transposed, right_transposed
    tensors = [emission.get(node, input_name) for input_name in node.inputs[:2]]
    shape = emission.fact(node.outputs[0]).shape
    return emission.emit(B.BATCH_MATMUL, tensors, name, shape, options)


def _gemm(emission: Emission, node: Node) -> None:
    """Compute alpha · A' · B' + beta · C."""
    _require_float(emission, node)
    beta, name = node.attribute("beta", 1.0), node.outputs[0]
    bias = _bias(emission, node, beta)
    result = _product(emission, node, bias, name if bias is not None else f"{name};product")
    if bias is None:
        addend = _scaled(emission, emission.get(node, node.inputs[2]), beta, f"{name};addend")
        result = emission.emit(B.ADD, [result, addend], name, result.shape, schema.AddOptionsT())
    emission.put(node, result)


def _product(emission: Emission, node: Node, bias: NDArray[np.float32] | None, name: str) -> Tensor:
    """Return alpha · A' · B', and the bias where there is one."""
    alpha = node.attribute("alpha", 1.0)
    left_transposed, right_transposed = bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))
    weights = emission.fact(node.inputs[1]).value
    if weights is not None:
        weights = np.float32(alpha) * (weights if right_transposed else weights.T)
        bias = np.zeros(len(weights), dtype=np.float32) if bias is None else bias
        tensor = emission.get(node, node.inputs[0], (1, 0) if left_transposed else None)
        return fully_connected(emission, node, tensor, weights, bias=bias, name=name)
    result = _batch_matmul(
        emission,
        node,
        f"{name};matmul",
        left_transposed=left_transposed,
        right_transposed=right_transposed,
    )
    result = _scaled(emission, result, alpha, f"{name};scaled")
    addend = emission.const(f"{name};bias", np.zeros((), dtype=np.float32) if bias is None else bias)
    return emission.emit(B.ADD, [result, addend], name, result.shape, schema.AddOptionsT())


def _bias(emission: Emission, node: Node, beta: float) -> NDArray[np.float32] | None:
    """Return beta · C as one number for each column; None if C is computed or differs by row."""
    columns = emission.fact(node.outputs[0]).shape[1]
    if not node.has(2) or beta == 0:
        return np.zeros(columns, dtype=np.float32)
    value = emission.fact(node.inputs[2]).value
    if value is None or (value.ndim == 2 and value.shape[0] != 1):
        return None
    return np.float32(beta) * np.broadcast_to(value.reshape(-1), (columns,)).astype(np.float32)


def _scaled(emission: Emission, tensor: Tensor, factor: float, name: str) -> Tensor:
    if factor == 1.0:
        return tensor
    scalar = emission.const(f"{name};factor", np.array(factor, dtype=np.float32))
    return emission.emit(B.MUL, [tensor, scalar], name, tensor.shape, schema.MulOptionsT())


def _require_float(emission: Emission, node: Node) -> None:
    for name in filter(None, node.inputs):
        require_dtype(emission, node, name, FLOAT)


OPERATORS: dict[str, Callable[[Emission, Node], None]] = {"MatMul": _matmul, "Gemm": _gemm}
