"""Which layers lose the accuracy in int8, and the fewest that have to stay float.

The measure is the signal-to-quantization-noise ratio, SQNR = 10·log₁₀(Σx² / Σ(x - x̂)²) in decibels, x
being float and x̂ quantized: 6 dB are one bit. A layer has two:

*cumulative*
    of its output, everything before it being quantized too: how the noise grows on its way through the model;
*isolated*
    of the model's output, this layer alone being quantized: what the layer itself is to blame for (Nagel et
    al., "A white paper on neural network quantization", 2021, section 3.7, quantizes one tensor at a time
    likewise).

The noise of layers is nearly independent, so that it adds up: 1/SQNR ≈ Σ 1/SQNRₗ in linear units (Lin,
Talathi and Annapureddy, "Fixed point quantization of deep convolutional networks", ICML 2016). Hence most
is gained by leaving the layer with the least isolated SQNR float, then the next, and so on; `fewest_kept`
finds how many, doubling the number and then halving the gap, and then puts back those that turn out not to
matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs, evenly_spaced
from converters.graphs.activations import batches
from converters.graphs.rewrite import parsed
from converters.runtimes.onnx import ONNXRUNTIME
from converters.target import Work
from converters.targets.onnx_int8 import build, prepared, quantizable
from fleet.protocol.errors import ConversionFailed

ISOLATION_SAMPLES = 64
"""Samples by which one layer after the other is judged: each needs a build of its own."""

MAX_BUILDS = 24


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


class Verdict(NamedTuple):
    """What a candidate is worth.

    Attributes:
        passes: Whether it is good enough.
        score: By which people compare it, such as its accuracy; None if it has none.
    """

    passes: bool
    score: float | None


class Attempt(msgspec.Struct, frozen=True):
    """One candidate that was built and judged.

    Attributes:
        kept: The layers that stayed float, sorted.
        passes: Whether it was good enough.
        score: What it reached; None if it could not be built.
    """

    kept: tuple[str, ...]
    passes: bool
    score: float | None


class KeptFloat(msgspec.Struct, frozen=True):
    """Which layers stay float.

    Attributes:
        layers: They, sorted; empty where none has to, or nothing helps.
        passes: Whether the model is good enough with them.
        trace: What was tried, in order.
    """

    layers: tuple[str, ...]
    passes: bool
    trace: tuple[Attempt, ...]


Build = Callable[[frozenset[str]], bytes]
"""Builds a candidate in which these layers stay float."""


def layer_errors(work: Work) -> tuple[LayerError, ...]:
    """Return what each layer loses in an int8 ONNX variant, the worst first.

    Args:
        work: What the variant is built from, with calibration samples; layers that are kept float are left
        out.

    Raises:
        ConversionFailed: The variant cannot be built.
    """
    samples = evenly_spaced(work.calibration or {}, ISOLATION_SAMPLES)
    model = prepared(work.onnx)
    nodes = [node for node in quantizable(model) if node.name not in work.keep_float]
    fp32 = model.SerializeToString()
    cumulative = cumulative_errors(fp32, build(work), samples)
    fewer = replace(work, calibration=samples)

    def answers(model: bytes) -> NDArray[Any]:
        return ONNXRUNTIME.open(model, work.signature).run(samples)

    isolated = isolated_errors(
        [node.name for node in nodes],
        lambda kept: build(replace(fewer, keep_float=kept | work.keep_float)),
        answers,
        answers(fp32),
    )
    found = [LayerError(n.name, n.op_type, cumulative.get(n.name), isolated[n.name]) for n in nodes]
    return tuple(sorted(found, key=lambda error: _ascending(error.isolated_db)))


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
    return {name: _decibels(signal[name], noise[name]) for name in pairs}


def isolated_errors(
    layers: Sequence[str],
    build_with: Build,
    answers: Callable[[bytes], NDArray[Any]],
    reference: NDArray[Any],
) -> dict[str, float | None]:
    """Return the SQNR of the model's output with one layer quantized, in dB, for each layer.

    Args:
        layers: Names of those that can be quantized.
        build_with: Builds the model with some of them kept float.
        answers: Runs what was built on some samples.
        reference: The float model's answers to these.

    Returns:
        By the layer's name; None without any noise.

    Raises:
        ConversionFailed: A model cannot be built or run.
    """
    exact = np.asarray(reference, dtype=np.float64)
    signal = float(np.square(exact).sum())
    found: dict[str, float | None] = {}
    for layer in layers:
        given = answers(build_with(frozenset(layers) - {layer}))
        found[layer] = _decibels(signal, float(np.square(exact - given).sum()))
    return found


def most_sensitive_first(errors: dict[str, float | None]) -> tuple[str, ...]:
    """Return the layers in the order in which they should be kept float."""
    return tuple(sorted(errors, key=lambda name: _ascending(errors[name])))


def fewest_kept(
    layers: Sequence[str],
    judge: Callable[[frozenset[str]], Verdict],
    *,
    max_builds: int = MAX_BUILDS,
) -> KeptFloat:
    """Find the fewest layers that have to stay float for a model to pass.

    Args:
        layers: All that can be quantized, the most sensitive first.
        judge: Builds the model with some layers kept float and judges it. What it raises as ConversionFailed
            counts as not passing. It is never called twice with the same layers, nor with all of them.
        max_builds: How often it may be called.
    """
    search = _Search(judge, max_builds)
    if search.passes(frozenset()):
        return search.result(frozenset())
    failing, passing = 0, 0
    size = 1
    while not passing and failing < len(layers) - 1:
        size = min(size, len(layers) - 1)
        if search.passes(frozenset(layers[:size])):
            passing = size
        else:
            failing, size = size, 2 * size
    if not passing:
        return search.result(None)
    while passing - failing > 1:
        middle = (passing + failing) // 2
        if search.passes(frozenset(layers[:middle])):
            passing = middle
        else:
            failing = middle
    kept = frozenset(layers[:passing])
    for layer in reversed(layers[:passing]):
        if len(kept) > 1 and search.passes(kept - {layer}):
            kept -= {layer}
    return search.result(kept)


class _Search:
    """Candidates that were judged, within a budget."""

    def __init__(self, judge: Callable[[frozenset[str]], Verdict], max_builds: int) -> None:
        self._judge = judge
        self._left = max_builds
        self._known: dict[frozenset[str], Attempt] = {}

    def passes(self, kept: frozenset[str]) -> bool:
        """Return whether a candidate passes; one that there is no budget for does not."""
        if kept not in self._known:
            if not self._left:
                return False
            self._left -= 1
            try:
                passes, score = self._judge(kept)
                self._known[kept] = Attempt(tuple(sorted(kept)), passes, score)
            except ConversionFailed:
                self._known[kept] = Attempt(tuple(sorted(kept)), passes=False, score=None)
        return self._known[kept].passes

    def result(self, kept: frozenset[str] | None) -> KeptFloat:
        """Return what was found, with how."""
        layers = () if kept is None else tuple(sorted(kept))
        return KeptFloat(layers, kept is not None, tuple(self._known.values()))


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


def _decibels(signal: float, noise: float) -> float | None:
    if not noise:
        return None
    return 10.0 * math.log10(max(signal, np.finfo(np.float64).tiny) / noise)


def _ascending(decibels: float | None) -> float:
    return math.inf if decibels is None else decibels
