"""Which layers lose the accuracy in int8.

The measure is the signal-to-quantization-noise ratio, SQNR = 10·log₁₀(Σx² / Σ(x - x̂)²) in decibels, x
being float and x̂ quantized: 6 dB are one bit. A layer has two:

*cumulative*
    of its output, everything before it being quantized too: how the noise grows on its way through the model;
*isolated*
    of the model's output, this layer alone being quantized: what the layer itself is to blame for (Nagel et
    al., "A white paper on neural network quantization", 2021, section 3.7, quantizes one tensor at a time
    likewise).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from converters.data.samples import Inputs, evenly_spaced
from converters.graphs.activations import batches
from converters.graphs.onnx_graph import parsed
from converters.judging.variant import Candidate
from converters.runtimes.onnx import ONNXRUNTIME
from converters.target import Target, Work
from converters.targets import onnx_int8
from converters.targets.onnx_int8 import prepared, quantizable
from fleet.protocol.errors import ConversionFailed

ISOLATION_SAMPLES = 64
"""Samples by which one layer after the other is judged: each needs a build of its own."""


class LayerError(msgspec.Struct, frozen=True):
    """What one layer loses in int8.

    Attributes:
        name: Of its ONNX node.
        operator: Its operator.
        cumulative_db: SQNR of its output, all layers being quantized; None without any noise.
        isolated_db: SQNR of the model's output, this layer alone being quantized; None likewise.
    """

    name: str
    operator: str
    cumulative_db: float | None
    isolated_db: float | None


def layer_errors(work: Work) -> tuple[LayerError, ...]:
    """Return what each layer loses in an int8 ONNX variant, the worst first.

    Args:
        work: What the variant is built from, with calibration samples; layers that are kept float are left
        out.

    Raises:
        ConversionFailed: The variant cannot be built.
    """
    model = prepared(work.onnx)
    samples = evenly_spaced(work.samples(), ISOLATION_SAMPLES)
    cumulative = cumulative_errors(model.SerializeToString(), onnx_int8.build(work), samples)
    isolated = isolated_errors(onnx_int8.TARGET, work)
    operators = {node.name: node.op_type for node in quantizable(model)}
    found = [
        LayerError(name, operators[name], cumulative.get(name), noise_db)
        for name, noise_db in isolated.items()
    ]
    return tuple(sorted(found, key=lambda error: _ascending(error.isolated_db)))


def layer_errors_of(candidates: Sequence[Candidate], work: Work) -> tuple[LayerError, ...]:
    """Return what each layer loses in int8, the worst first; nothing where no int8 variant could be built.

    Args:
        candidates: The variants.
        work: What they were built from.
    """
    built = any(each.target.precision == "int8" and each.model is not None for each in candidates)
    if not built or not work.onnx or work.calibration is None:
        return ()
    try:
        return layer_errors(work)
    except ConversionFailed:  # the TFLite variant was built, and ONNX has no counterpart to measure on
        return ()


def cumulative_errors(fp32: bytes, int8: bytes, samples: Inputs) -> dict[str, float | None]:
    """Return the SQNR of each product's output, in dB, between a graph and its quantized form.

    Args:
        fp32: The graph as `converters.targets.onnx_int8.prepared` makes it.
        int8: What was built from it.
        samples: What both are run on.

    Returns:
        By the node's name; None without any noise.

    Raises:
        ConversionFailed: onnxruntime cannot run them.
    """
    pairs = _matching_tensors(int8, [node.name for node in quantizable(parsed(fp32))])
    exact = batches(fp32, samples, only={pair[0] for pair in pairs.values()})
    quantized = batches(int8, samples, only={pair[1] for pair in pairs.values()})
    signal, noise = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0.0)
    for expected, given in zip(exact, quantized, strict=True):
        for name, (of_fp32, of_int8) in pairs.items():
            values = expected[of_fp32].astype(np.float64)
            signal[name] += float(np.square(values).sum())
            noise[name] += float(np.square(values - given[of_int8]).sum())
    return {name: sqnr_db(signal[name], noise[name]) for name in pairs}


def isolated_errors(target: Target, work: Work) -> dict[str, float | None]:
    """Return the SQNR of the model's output with one layer quantized, in dB, for each that can be.

    Args:
        target: Builds the model in int8.
        work: What from; layers that it keeps float are left out.

    Returns:
        By the layer's name; None without any noise.

    Raises:
        ConversionFailed: A model cannot be built or run, or there are no samples.
    """
    samples = evenly_spaced(work.samples(), ISOLATION_SAMPLES)
    layers = [n.name for n in quantizable(prepared(work.onnx)) if n.name not in work.keep_float]
    exact = ONNXRUNTIME.open(work.onnx, work.signature).run(samples).astype(np.float64)
    signal = float(np.square(exact).sum())
    found: dict[str, float | None] = {}
    for layer in layers:
        others = work.keep_float.union(layers) - {layer}
        model = target.build(replace(work, calibration=samples, keep_float=others))
        given = target.runtime.open(model, work.signature).run(samples)
        found[layer] = sqnr_db(signal, float(np.square(exact - given).sum()))
    return found


def sqnr_db(signal: float, noise: float) -> float | None:
    """Return the signal-to-quantization-noise ratio in dB; None without any noise.

    Args:
        signal: Sum of the squares of the exact values.
        noise: Sum of the squares of what quantization adds to them.
    """
    if not noise:
        return None
    return 10.0 * math.log10(max(signal, np.finfo(np.float64).tiny) / noise)


def most_sensitive_first(errors: dict[str, float | None]) -> tuple[str, ...]:
    """Return the layers in the order in which they should be kept float."""
    return tuple(sorted(errors, key=lambda name: _ascending(errors[name])))


def _matching_tensors(int8: bytes, products: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return, for each product, a tensor of the float graph and the one that took its place.

    The quantizer gives the output of a product the name of its ReLU's where it drops that, appends
    ``_QuantizeLinear_Input`` where the graph's own output is quantized, and ``_DequantizeLinear_Output`` to
    what the next node takes.
    """
    graph = parsed(int8).graph
    made = {name for node in graph.node for name in node.output}
    outputs = {node.name: node.output[0] for node in graph.node if node.name in set(products)}
    pairs = {}
    for product, output in outputs.items():
        name = output.removesuffix("_QuantizeLinear_Input")
        dequantized = f"{name}_DequantizeLinear_Output"
        pairs[product] = (name, dequantized if dequantized in made else name)
    return pairs


def _ascending(decibels: float | None) -> float:
    return math.inf if decibels is None else decibels
