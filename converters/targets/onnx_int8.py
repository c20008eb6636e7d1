"""``onnx-int8``: static int8 as quantize-dequantize pairs (QDQ), which runtimes turn into integer kernels.

What is quantized: matrix products and convolutions with constant weights, that is nearly all weights and
nearly all work, and what lies between two of them where onnxruntime has integer kernels for it. Activations
get one scale for each tensor (`converters.graphs.calibration`); weights get one for each output channel.

What stays float: everything before the first product (the features of a scaler span orders of magnitude, and
one scale for all of them took accuracy from 0.96 to 0.67), what follows the last one, the outputs of matrix
products (the bias is added to them in float; quantizing in between only loses precision), softmax and other
curves, and the nodes that are asked to.

Weights use 7 of their 8 bits (``reduce_range``). x86 processors without VNNI multiply with ``VPMADDUBSW``,
which adds two products of an unsigned and a signed byte in 16 bits: 2 · 255 · 127 does not fit and saturates
silently, 2 · 255 · 64 fits. So integer arithmetic is exact on every processor: all give the same answers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.data.samples import Inputs
from converters.graphs.calibration import calibrated_ranges
from converters.graphs.naming import name_nodes
from converters.graphs.onnx_graph import float_tensors, initializers, parsed, producers
from converters.graphs.rewrite import fold_gemm_factors, fold_normalization, join_biases, store_constants
from converters.graphs.session import onnxruntime_cannot
from converters.runtimes.onnx import ONNXRUNTIME
from converters.target import CalibrationMethod, Target, Work
from fleet.protocol.errors import ConversionFailed

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

CONVOLUTIONS = frozenset({"Conv"})
FLOAT_OUTPUT = frozenset({"ConvTranspose", "Gemm", "MatMul"})
PRODUCTS = CONVOLUTIONS | FLOAT_OUTPUT
BETWEEN = frozenset(
    {"Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul"}
    | {"Pad", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators for which onnxruntime has integer kernels on processors, or that only move values."""


def build(work: Work) -> bytes:
    """Return the graph with int8 weights and activations.

    Raises:
        ConversionFailed: There are no samples, the graph has no product to quantize, or onnxruntime cannot
            quantize it.
    """
    import onnx

    samples = work.samples()
    model = prepared(work.onnx)
    products = [node.name for node in quantizable(model)]
    chosen = [name for name in products if name not in work.keep_float]
    if not chosen:
        why = "all of them are to stay float" if products else "it has none"
        raise ConversionFailed(
            f"Only products with constant weights ({', '.join(sorted(PRODUCTS))}) are quantized, and {why}:"
            " int8 would change nothing.",
            remedy="Pack the model as fp32.",
        )
    inner = [node.name for node in _between(model.graph, set(chosen)) if node.name not in work.keep_float]
    model = onnx.shape_inference.infer_shapes(model)
    return _quantized(model, [*chosen, *inner], samples, work.method)


def prepared(model: bytes) -> ModelProto:
    """Return the graph in the form in which its nodes are quantized and called by name."""
    graph = parsed(model)
    name_nodes(graph)
    store_constants(graph)
    fold_normalization(graph)
    join_biases(graph)
    fold_gemm_factors(graph)
    return graph


def quantizable(model: ModelProto) -> list[NodeProto]:
    """Return the nodes that int8 can change: products of what varies with constant float weights."""
    from onnx import TensorProto

    constants = initializers(model.graph)
    return [
        node
        for node in model.graph.node
        if node.op_type in PRODUCTS
        and not node.domain
        and node.input[0] not in constants
        and node.input[1] in constants
        and constants[node.input[1]].data_type == TensorProto.FLOAT
        and all(name in constants for name in node.input[2:] if name)
    ]


def _between(graph: GraphProto, products: set[str]) -> list[NodeProto]:
    """Return the nodes between quantized products, and those that a convolution's integer kernel includes.

    All that varies in them is quantized already. A ReLU behind the last convolution is among them: without
    it, half of the 256 levels of that output would be for negative values that nothing takes.
    """
    constants, made_by = initializers(graph), producers(graph)
    quantized: set[str] = set()
    reached = []
    for node in graph.node:  # in topological order
        varying = [name for name in node.input if name and name not in constants]
        if node.name in products and node.op_type in CONVOLUTIONS:
            quantized.update(node.output)
        elif node.op_type in BETWEEN and not node.domain and varying and quantized.issuperset(varying):
            quantized.update(node.output)
            reached.append(node)
    leading: set[str] = {name for node in graph.node if node.name in products for name in node.input}
    kept = []
    for node in reversed(reached):
        maker = made_by.get(node.input[0])
        included = node.op_type in {"Relu", "Clip"} and maker is not None and maker.op_type in CONVOLUTIONS
        if included or leading.intersection(node.output):
            leading.update(node.input)
            kept.append(node)
    return kept[::-1]


def _quantized(
    model: ModelProto, nodes: Collection[str], samples: Inputs, method: CalibrationMethod
) -> bytes:
    from onnxruntime import quantization
    from onnxruntime.quantization import QDQQuantizer, QuantType, TensorsData

    constants = initializers(model.graph)
    members = [node for node in model.graph.node if node.name in nodes]
    tensors = {name for node in members for name in node.input if name not in constants}
    tensors.update(name for node in members if node.op_type not in FLOAT_OUTPUT for name in node.output)
    floats = tensors & float_tensors(model.graph)
    limits = calibrated_ranges(model.SerializeToString(), samples, floats, method)
    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in limits.items()}
    producer = model.producer_name, model.producer_version
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(quantization.CalibrationMethod.MinMax, data),
        nodes_to_quantize=list(nodes),
        nodes_to_exclude=[],
        op_types_to_quantize=sorted(PRODUCTS | BETWEEN),
        extra_options={"OpTypesToExcludeOutputQuantization": sorted(FLOAT_OUTPUT)},
    )
    try:
        quantizer.quantize_model()
    except Exception as error:
        raise onnxruntime_cannot("quantize the graph", error) from error
    quantizer.model.topological_sort()  # it appends what it adds
    return _finished(quantizer.model.model, producer)


def _finished(model: Any, producer: tuple[str, str]) -> bytes:
    """Return the bytes without what only the quantizer needed."""
    del model.graph.value_info[:]
    model.producer_name, model.producer_version = producer
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ConversionFailed("Quantization left the graph as it was.", remedy="Pack the model as fp32.")
    return bytes(model.SerializeToString(deterministic=True))


TARGET = Target("onnx-int8", "int8", ONNXRUNTIME, "model.onnx", calibrated=True, build=build)
