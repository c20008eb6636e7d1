"""The layers of a TFLite file: what they are called, and which of them are worth quantizing.

A layer is what became one operator: a convolution with the batch norm and the ReLU that were fused into it.
It is named by any of its ONNX nodes, which `emit_tflite` writes beside the graph, or by the tensor that it
writes, which has the name of the ONNX tensor.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.tflite.flatbuffer import LAYERS
from converters.tflite.inspect import inspect_tflite
from fleet.protocol.errors import ConversionFailed

PRODUCTS = frozenset({"FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE"})
"""The quantizer's names of what has weights."""

CARRIERS = frozenset(
    {
        "ADD",
        "AVERAGE_POOL_2D",
        "CONCATENATION",
        "GATHER",
        "HARD_SWISH",
        "LOGISTIC",
        "MAX_POOL_2D",
        "MEAN",
        "MIRROR_PAD",
        "MUL",
        "PAD",
        "RELU",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "SLICE",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "STRIDED_SLICE",
        "SUB",
        "TANH",
        "TRANSPOSE",
    }
)
"""The quantizer's names of what may be int8 between two products."""


def read_tables(model: bytes) -> Any:
    """Return a TFLite file in the schema's object API.

    Raises:
        InvalidModel: It is not a sound TFLite file.
        ConversionFailed: It has more than one subgraph.
    """
    from ai_edge_litert.tools.flatbuffer_utils import read_model_from_bytearray

    inspect_tflite(model)
    graph = read_model_from_bytearray(bytearray(model))
    if len(graph.subgraphs) != 1:
        raise ConversionFailed(f"The model has {len(graph.subgraphs)} subgraphs; only one can be quantized.")
    return graph


def text(name: Any) -> str:
    """Return a name that the object API may give as bytes."""
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)


class Layer:
    """One operator of a model, in the quantizer's words.

    Args:
        kind: The quantizer's name of the operator; empty for one that it does not know.
        operator: The operator, in the schema's object API.
        graph: The model that it belongs to.
        nodes: By name of the tensor that an operator writes, the ONNX nodes that it is.
    """

    def __init__(self, kind: str, operator: Any, graph: Any, nodes: dict[str, list[str]]) -> None:
        self.kind = kind
        self.reads = [int(number) for number in operator.inputs if number >= 0]
        self.writes = [int(number) for number in operator.outputs]
        self._graph = graph
        self.names = [text(graph.subgraphs[0].tensors[number].name) for number in self.writes]
        self.nodes = frozenset(nodes.get(self.names[0], ())).union(self.names)

    @property
    def name(self) -> str:
        """Name of the first tensor that it writes."""
        return self.names[0]

    @property
    def is_product(self) -> bool:
        """Whether it multiplies by constant weights."""
        return self.kind in PRODUCTS and self._buffer() is not None

    @property
    def weights(self) -> NDArray[np.float32]:
        """The constant weights of a product, as they are stored."""
        return np.frombuffer(bytes(self._buffer()), dtype="<f4")

    @property
    def scope(self) -> str:
        """A regular expression for this operator alone: the quantizer matches it with the output's names."""
        return "^" + re.escape("".join(f"{name};" for name in self.names)) + "$"

    def _buffer(self) -> Any:
        if len(self.reads) < 2:
            return None
        return self._graph.buffers[self._graph.subgraphs[0].tensors[self.reads[1]].buffer].data


def layers_of(graph: Any) -> list[Layer]:
    """Return the operators of a model as `read_tables` gives it, in the order in which they run."""
    from ai_edge_quantizer.utils.tfl_flatbuffer_utils import TFL_OP_CODE_TO_NAME

    layers, nodes = [], _nodes(graph)
    for operator in graph.subgraphs[0].operators:
        entry = graph.operatorCodes[operator.opcodeIndex]
        kind = TFL_OP_CODE_TO_NAME.get(max(entry.builtinCode, entry.deprecatedBuiltinCode))
        layers.append(Layer(str(kind.value) if kind else "", operator, graph, nodes))
    return layers


def _nodes(graph: Any) -> dict[str, list[str]]:
    """Return the ONNX nodes of each operator, by the tensor that it writes; nothing for a foreign file."""
    for entry in graph.metadata or ():
        if text(entry.name) == LAYERS:
            try:
                layers = msgspec.json.decode(bytes(graph.buffers[entry.buffer].data), type=list[list[str]])
            except msgspec.DecodeError as error:
                raise ConversionFailed(f"The metadata {LAYERS} of the model is damaged.") from error
            return {tensor: names for tensor, *names in layers}
    return {}


def chosen_layers(layers: list[Layer], keep_float: Collection[str]) -> list[Layer]:
    """Return the products, and the carriers that have one before and one behind them.

    Args:
        layers: All layers of a model, in the order in which they run.
        keep_float: Layers to leave out, each by any of its names.

    Raises:
        ConversionFailed: There is no such layer, or no product is left.
    """
    if unknown := set(keep_float) - {name for layer in layers for name in layer.nodes}:
        known = ", ".join(layer.name for layer in layers if layer.is_product)
        raise ConversionFailed(
            f"The model has no layer {min(unknown)!r:.80} to keep in float.",
            remedy=f"Its layers are: {known:.400}.",
        )
    candidates = [layer for layer in layers if layer.nodes.isdisjoint(keep_float)]
    products = [layer for layer in candidates if layer.is_product]
    if not products:
        raise ConversionFailed(
            "The model has no product with weights to quantize, so int8 would change nothing."
        )
    behind = {number for layer in products for number in layer.writes}
    for layer in layers:
        if behind.intersection(layer.reads):
            behind.update(layer.writes)
    before = {number for layer in products for number in layer.reads}
    for layer in reversed(layers):
        if before.intersection(layer.writes):
            before.update(layer.reads)
    between = behind & before
    return [
        layer
        for layer in candidates
        if layer.is_product or (layer.kind in CARRIERS and between.issuperset(layer.writes))
    ]
