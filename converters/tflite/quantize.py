"""Static int8 and float16 weights for TFLite files, by ``ai-edge-quantizer``.

What becomes int8: the products with constant weights (convolutions and dense layers, nearly all weights and
work), and the operators that only carry values from one product to the next, so that nothing is converted
back and forth in between. What stays float: everything before the first product and behind the last one.
In front that is preprocessing, whose inputs span orders of magnitude (one scale for all of them took accuracy
from 0.96 to 0.67); behind it is softmax, whose steps would be 1/256. Inputs and outputs stay float32.

Weights get a scale for each output channel, activations one for each tensor, from the least and greatest
value over all samples (min-max): the moving average that the quantizer uses of its own accord depends on the
order of the samples and clips what is rare.

A layer is what became one operator: a convolution with the batch norm and the ReLU that were fused into it.
``keep_float`` names it by any of its ONNX nodes, which `emit_tflite` writes beside the graph, or by the
tensor that it writes, which has the name of the ONNX tensor; `quantizable_layers` lists these.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.tflite.run import TfliteSession
from fleet.protocol.errors import ConversionFailed

CALIBRATION_BATCH = 64
MAX_FLOAT16 = 65504.0

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


def quantizable_layers(model: bytes) -> tuple[str, ...]:
    """Return the names of the products that `quantize_tflite_int8` makes int8, in the order they run in.

    Args:
        model: A float32 TFLite file, as `emit_tflite` writes it.

    Raises:
        ConversionFailed: It cannot be read.
    """
    graph = _read(model)
    return tuple(layer.name for layer in _layers(graph) if layer.is_product)


def quantize_tflite_int8(
    model: bytes, samples: dict[str, NDArray[Any]], *, keep_float: Collection[str] = ()
) -> bytes:
    """Return the model in static int8, inputs and outputs float32; the same inputs give the same bytes.

    Args:
        model: A float32 TFLite file, as `emit_tflite` writes it.
        samples: For each input, samples that training may have seen, shape (K, …).
        keep_float: ONNX nodes or tensors whose layers stay float (mixed precision).

    Raises:
        ConversionFailed: There is no such layer, nothing is left to quantize, the samples do not fit, or the
            quantizer fails.
    """
    graph = _read(model)
    chosen = _chosen(_layers(graph), set(keep_float))
    ranges = _calibrated(model, samples)
    recipe = [_static_recipe(layer) for layer in chosen]
    return _quantized(model, recipe, ranges)


def weights_to_fp16(model: bytes) -> bytes:
    """Return the model with the weights of its products stored as float16; it computes in float32.

    Args:
        model: A float32 TFLite file, as `emit_tflite` writes it.

    Raises:
        ConversionFailed: A weight is too large for float16, there are no weights, or the quantizer fails.
    """
    graph = _read(model)
    layers = [layer for layer in _layers(graph) if layer.is_product]
    if not layers:
        raise ConversionFailed("The model has no product with weights, so float16 would change nothing.")
    for layer in layers:
        greatest = float(np.abs(layer.weights).max(initial=0.0))
        if not greatest <= MAX_FLOAT16:
            raise ConversionFailed(
                f"Layer {layer.name!r:.80} has a weight of {greatest:g}; float16 ends at {MAX_FLOAT16:g}.",
                remedy="Keep this model in float32, or train it with smaller weights.",
            )
    return _quantized(model, [_float16_recipe(layer) for layer in layers], None)


class _Layer:
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
        self.names = [_text(graph.subgraphs[0].tensors[number].name) for number in self.writes]
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


def _layers(graph: Any) -> list[_Layer]:
    from ai_edge_quantizer.utils.tfl_flatbuffer_utils import TFL_OP_CODE_TO_NAME

    layers, nodes = [], _nodes(graph)
    for operator in graph.subgraphs[0].operators:
        entry = graph.operatorCodes[operator.opcodeIndex]
        kind = TFL_OP_CODE_TO_NAME.get(max(entry.builtinCode, entry.deprecatedBuiltinCode))
        layers.append(_Layer(str(kind.value) if kind else "", operator, graph, nodes))
    return layers


def _nodes(graph: Any) -> dict[str, list[str]]:
    """Return the ONNX nodes of each operator, by the tensor that it writes; nothing for a foreign file."""
    from converters.tflite.flatbuffer import LAYERS

    for entry in graph.metadata or ():
        if _text(entry.name) == LAYERS:
            try:
                layers = msgspec.json.decode(bytes(graph.buffers[entry.buffer].data), type=list[list[str]])
            except msgspec.DecodeError as error:
                raise ConversionFailed(f"The metadata {LAYERS} of the model is damaged.") from error
            return {tensor: names for tensor, *names in layers}
    return {}


def _chosen(layers: list[_Layer], keep_float: set[str]) -> list[_Layer]:
    """Return the products, and the carriers that have one before and one behind them."""
    if unknown := keep_float - {name for layer in layers for name in layer.nodes}:
        known = ", ".join(layer.name for layer in layers if layer.is_product)
        raise ConversionFailed(
            f"The model has no layer {min(unknown)!r:.80} to keep in float.",
            remedy=f"Its layers are: {known:.400}.",
        )
    candidates = [layer for layer in layers if keep_float.isdisjoint(layer.nodes)]
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


def _calibrated(model: bytes, samples: dict[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the least and greatest value of every computed float32 tensor over all samples."""
    session = TfliteSession(model, keep_intermediate=True)
    ranges: dict[str, dict[str, NDArray[Any]]] = {}
    for batch in _batches(samples):
        session.run(batch)
        for name, value in session.intermediate().items():
            if value.dtype != np.float32 or not value.size:
                continue
            low, high = (extreme(value, keepdims=True) for extreme in (np.min, np.max))
            known = ranges.setdefault(name, {"min": low, "max": high})
            known["min"] = np.minimum(known["min"].reshape(low.shape), low)
            known["max"] = np.maximum(known["max"].reshape(high.shape), high)
    for name, extremes in ranges.items():
        if not all(np.isfinite(value).all() for value in extremes.values()):
            raise ConversionFailed(
                f"Tensor {name!r:.80} is not finite for some of the calibration samples.",
                remedy="Remove samples with missing or infinite values.",
            )
    return ranges


def _batches(samples: dict[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
    counts = {len(values) for values in samples.values()}
    if len(counts) != 1 or 0 in counts:
        raise ConversionFailed("Calibration needs one or more samples, as many of each input.")
    for start in range(0, counts.pop(), CALIBRATION_BATCH):
        yield {name: values[start : start + CALIBRATION_BATCH] for name, values in samples.items()}


def _static_recipe(layer: _Layer) -> dict[str, Any]:
    tensor = {"num_bits": 8, "granularity": "TENSORWISE", "dtype": "INT"}
    weights = {"num_bits": 8, "symmetric": True, "granularity": "CHANNELWISE", "dtype": "INT"}
    return _recipe(
        layer,
        "min_max_uniform_quantize",
        {
            "activation_tensor_config": {**tensor, "symmetric": False},
            "weight_tensor_config": weights,
            "compute_precision": "INTEGER",
            "explicit_dequantize": False,
        },
    )


def _float16_recipe(layer: _Layer) -> dict[str, Any]:
    return _recipe(
        layer,
        "float_casting",
        {
            "weight_tensor_config": {"num_bits": 16, "dtype": "FLOAT"},
            "compute_precision": "FLOAT",
            "explicit_dequantize": True,
        },
    )


def _recipe(layer: _Layer, algorithm: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "regex": layer.scope,
        "operation": layer.kind,
        "algorithm_key": algorithm,
        "op_config": config,
    }


def _quantized(model: bytes, recipe: list[dict[str, Any]], ranges: Any) -> bytes:
    from ai_edge_quantizer.quantizer import Quantizer

    try:
        quantizer = Quantizer(model, recipe)
        with warnings.catch_warnings():  # it loads the model for debugging, and its runtime warns of that
            warnings.simplefilter("ignore", UserWarning)
            result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        quantized = result.quantized_model
        assert quantized is not None
    except Exception as error:  # the quantizer raises whatever Python raises
        raise ConversionFailed(f"The model cannot be quantized: {error}.") from error
    return _rewritten(bytes(quantized))


def _rewritten(quantized: bytes) -> bytes:
    """Return the quantizer's file as one that old runtimes read, its outputs under their own names.

    The quantizer keeps the operator versions of the float model, and puts buffers of a large model behind the
    flatbuffer, where runtimes before 2.15 do not look.
    """
    from converters.tflite.flatbuffer import write_model

    graph = _read(quantized)
    graph.metadata = None
    subgraph = graph.subgraphs[0]
    taken = {_text(tensor.name): tensor for tensor in subgraph.tensors}
    for signature in graph.signatureDefs or ():
        for item in signature.outputs:
            tensor, name = subgraph.tensors[item.tensorIndex], _text(item.name)
            if name in taken and taken[name] is not tensor:
                taken[name].name = f"{name};int8"
            tensor.name = name
    return write_model(graph)


def _read(model: bytes) -> Any:
    from ai_edge_litert.tools.flatbuffer_utils import read_model_from_bytearray

    from converters.tflite.inspect import inspect_tflite

    inspect_tflite(model)
    graph = read_model_from_bytearray(bytearray(model))
    if len(graph.subgraphs) != 1:
        raise ConversionFailed(f"The model has {len(graph.subgraphs)} subgraphs; only one can be quantized.")
    return graph


def _text(name: Any) -> str:
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)
