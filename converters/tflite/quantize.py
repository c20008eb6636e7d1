"""Static int8 and float16 weights for TFLite files, by ``ai-edge-quantizer``.

What becomes int8: the products with constant weights (convolutions and dense layers, nearly all weights and
work), and the operators that only carry values from one product to the next, so that nothing is converted
back and forth in between. What stays float: everything before the first product and behind the last one.
In front that is preprocessing, whose inputs span orders of magnitude (one scale for all of them took accuracy
from 0.96 to 0.67); behind it is softmax, whose steps would be 1/256. Inputs and outputs stay float32.

Weights get a scale for each output channel, activations one for each tensor, from the least and greatest
value over all samples (min-max): the moving average that the quantizer uses of its own accord depends on the
order of the samples and clips what is rare.

What a layer is called, and which are chosen, is in `converters.tflite.layers`.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.data.batches import in_batches
from converters.graphs.float16 import GREATEST_FLOAT16
from converters.tflite.run import TfliteSession
from fleet.protocol.errors import ConversionFailed

if TYPE_CHECKING:
    from converters.tflite.layers import Layer

CALIBRATION_BATCH = 64


def quantize_tflite_int8(
    model: bytes, samples: dict[str, NDArray[Any]], *, keep_float: Collection[str] = ()
) -> bytes:
    """Return the model in static int8, inputs and outputs float32; the same inputs give the same bytes.

    Args:
        model: A float32 TFLite file, as `emit_tflite` writes it.
        samples: For each input, samples that training may have seen, shape (K, …).
        keep_float: Layers that stay float (mixed precision), each by the name of one of its ONNX nodes or of
            the tensor that it writes.

    Raises:
        InvalidModel: The model is not a sound TFLite file.
        ConversionFailed: There is no such layer, nothing is left to quantize, the samples do not fit, or the
            quantizer fails.
    """
    from converters.tflite.layers import chosen_layers, layers_of, read_tables

    chosen = chosen_layers(layers_of(read_tables(model)), keep_float)
    ranges = _calibrated(model, samples)
    recipe = [_static_recipe(layer) for layer in chosen]
    return _quantized(model, recipe, ranges)


def weights_to_fp16(model: bytes) -> bytes:
    """Return the model with the weights of its products stored as float16; it computes in float32.

    Args:
        model: A float32 TFLite file, as `emit_tflite` writes it.

    Raises:
        InvalidModel: The model is not a sound TFLite file.
        ConversionFailed: A weight is too large for float16, there are no weights, or the quantizer fails.
    """
    from converters.tflite.layers import layers_of, read_tables

    layers = [layer for layer in layers_of(read_tables(model)) if layer.is_product]
    if not layers:
        raise ConversionFailed("The model has no product with weights, so float16 would change nothing.")
    for layer in layers:
        greatest = float(np.abs(layer.weights).max(initial=0.0))
        if not greatest <= GREATEST_FLOAT16:
            raise ConversionFailed(
                f"Layer {layer.name!r:.80} has a weight of {greatest:g};"
                f" float16 ends at {GREATEST_FLOAT16:g}.",
                remedy="Keep this model in float32, or train it with smaller weights.",
            )
    return _quantized(model, [_float16_recipe(layer) for layer in layers], None)


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
    return in_batches(samples, CALIBRATION_BATCH)


def _static_recipe(layer: Layer) -> dict[str, Any]:
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


def _float16_recipe(layer: Layer) -> dict[str, Any]:
    return _recipe(
        layer,
        "float_casting",
        {
            "weight_tensor_config": {"num_bits": 16, "dtype": "FLOAT"},
            "compute_precision": "FLOAT",
            "explicit_dequantize": True,
        },
    )


def _recipe(layer: Layer, algorithm: str, config: dict[str, Any]) -> dict[str, Any]:
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
    from converters.tflite.layers import read_tables, text

    graph = read_tables(quantized)
    graph.metadata = None
    subgraph = graph.subgraphs[0]
    taken = {text(tensor.name): tensor for tensor in subgraph.tensors}
    for signature in graph.signatureDefs or ():
        for item in signature.outputs:
            tensor, name = subgraph.tensors[item.tensorIndex], text(item.name)
            if name in taken and taken[name] is not tensor:
                taken[name].name = f"{name};int8"
            tensor.name = name
    return write_model(graph)
