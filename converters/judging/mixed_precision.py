"""Mixed precision: the fewest layers that have to stay float for an int8 variant to pass.

The layers are tried in the order of what each is to blame for (see `sensitivity`), measured on the variant's
own runtime: they quantize differently, and TFLite also what a dense layer gives. Layers go by the names of
their ONNX nodes on both. Every candidate is built whole and judged by the gate like any other variant, on the
same samples: a choice by those samples, if a mild one, for there are few candidates.

The noise of layers is nearly independent, so that it adds up: 1/SQNR ≈ Σ 1/SQNRₗ in linear units (Lin,
Talathi and Annapureddy, "Fixed point quantization of deep convolutional networks", ICML 2016). Hence most
is gained by leaving the layer with the least isolated SQNR float, then the next, and so on; `fewest_kept`
finds how many, doubling the number and then halving the gap, and then puts back those that turn out not to
matter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from converters.graphs.naming import name_nodes
from converters.graphs.onnx_graph import parsed
from converters.judging.sensitivity import isolated_errors, most_sensitive_first
from converters.judging.variant import Candidate, Yardstick, build_variant
from converters.target import Work
from converters.targets.onnx_int8 import prepared, quantizable
from fleet.protocol.errors import ConversionFailed, InvalidInput

MAX_BUILDS = 24
"""How often a variant is built and judged in search of these layers."""


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


def check_layers(names: Collection[str], model: bytes) -> None:
    """Check that layers which are to stay float are in a model: a name that is not would change nothing.

    Args:
        names: Of ONNX nodes.
        model: The fp32 graph.

    Raises:
        InvalidInput: There is no such node; the remedy lists the layers that can stay float.
    """
    if not names:
        return
    given, changed = parsed(model), prepared(model)
    name_nodes(given)
    known = {node.name for graph in (given.graph, changed.graph) for node in graph.node}
    if unknown := sorted(set(names) - known):
        layers = ", ".join(node.name for node in quantizable(changed)) or "none"
        raise InvalidInput(
            f"The model has no node {', '.join(map(repr, unknown)):.200}.",
            remedy=f"These layers are quantized and can stay float: {layers:.1000}.",
        )


def with_fewest_float(candidate: Candidate, work: Work, yardstick: Yardstick) -> Candidate:
    """Return the variant with the fewest layers in float that pass, or the variant itself.

    Args:
        candidate: An int8 variant. It is returned as it is if it passes, could not be built at all, or if
            nothing short of all layers helps; then its cautions say so.
        work: What it was built from.
        yardstick: What it is judged by.
    """
    if candidate.sound or candidate.evaluation is None or work.calibration is None:
        return candidate
    tried = {frozenset[str](): candidate}

    def judge(kept: frozenset[str]) -> Verdict:
        if kept not in tried:
            mixed = replace(work, keep_float=work.keep_float | kept)
            tried[kept] = build_variant(candidate.target, mixed, yardstick)
        built = tried[kept]
        if built.evaluation is None:
            raise ConversionFailed(f"It could not be judged: {built.failure}")
        return Verdict(built.sound, built.evaluation.value)

    try:
        order = most_sensitive_first(isolated_errors(candidate.target, work))
    except ConversionFailed as error:
        candidate.cautions.append(f"Which layers lose most cannot be measured: {error}")
        return candidate
    found = fewest_kept(order, judge)
    if not found.passes:
        candidate.cautions.append(
            f"{len(found.trace)} choices of layers to keep in float were tried, and none passes."
        )
        return candidate
    chosen = tried[frozenset(found.layers)]
    chosen.duration_s = sum(each.duration_s for each in tried.values())
    return chosen


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
