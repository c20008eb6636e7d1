"""Mixed precision: the fewest layers that have to stay float for an int8 variant to pass.

The layers are tried in the order of what each is to blame for (see `sensitivity`), measured on the variant's
own runtime: they quantize differently, and TFLite also what a dense layer gives. Layers go by the names of
their ONNX nodes on both. Every candidate is built whole and judged by the gate like any other variant, on the
same samples: a choice by those samples, if a mild one, for there are few candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from converters.data.samples import evenly_spaced
from converters.judging.sensitivity import (
    ISOLATION_SAMPLES,
    LayerError,
    Verdict,
    fewest_kept,
    isolated_errors,
    layer_errors,
    most_sensitive_first,
)
from converters.judging.variant import Candidate, Yardstick, build_variant
from converters.runtimes.onnx import ONNXRUNTIME
from converters.target import Target, Work
from converters.targets.onnx_int8 import prepared, quantizable
from fleet.protocol.errors import ConversionFailed


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
        order = _most_sensitive_first(candidate.target, work)
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


def _most_sensitive_first(target: Target, work: Work) -> tuple[str, ...]:
    """Return the layers in the order in which they should be kept float.

    Raises:
        ConversionFailed: A layer cannot be quantized alone.
    """
    graph = prepared(work.onnx)
    layers = [node.name for node in quantizable(graph) if node.name not in work.keep_float]
    samples = evenly_spaced(work.calibration or {}, ISOLATION_SAMPLES)
    fewer = replace(work, calibration=samples)

    def answers(model: bytes) -> NDArray[Any]:
        return target.runtime.open(model, work.signature).run(samples)

    return most_sensitive_first(
        isolated_errors(
            layers,
            lambda kept: target.build(replace(fewer, keep_float=kept | work.keep_float)),
            answers,
            ONNXRUNTIME.open(work.onnx, work.signature).run(samples),
        )
    )
