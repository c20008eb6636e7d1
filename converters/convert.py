"""The conversion: one trained model in, a judged variant for each target out.

::

    open the source ─► draw the samples ─► judge the source ─► for each target: build, run, judge
                                               (add a head)         │ int8 loses too much, keep_float="auto"
                                                                    ▼
                    report ◄─ bundle ◄─ golden inputs ◄─ time ◄─ find the layers to keep in float

What cannot be opened, or is not good enough itself, raises. What a single target cannot do goes into that
variant's report, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from converters.bundles.bundle import Bundle, Identity
from converters.bundles.pack import pack
from converters.data.samples import Samples
from converters.embedding import EMBEDDING, with_embedding
from converters.judging.gate import Gate
from converters.judging.latency import measure_latency
from converters.judging.mixed_precision import check_layers, with_fewest_float
from converters.judging.prepare import Prepared, given_samples, prepare
from converters.judging.sensitivity import layer_errors_of
from converters.judging.variant import Candidate, Yardstick, build_variant
from converters.report import Report, make_report
from converters.source import Source
from converters.sources import open_source
from converters.target import CalibrationMethod, Target, Work
from converters.targets import chosen_targets
from fleet.drift.inputs import LAYOUTS
from fleet.protocol.errors import InvalidInput

KeepFloat = Collection[str] | Literal["auto"]


@dataclass(frozen=True, eq=False)
class Conversion:
    """What `convert` returns.

    Attributes:
        report: What became of each variant.
        models: The models that passed, by variant.
        file_names: What each is called in a bundle, by variant.
        bundle: The variants that passed, with golden inputs and reference profile, ready to be registered;
            None without samples, or if none passed.
    """

    report: Report
    models: Mapping[str, bytes]
    file_names: Mapping[str, str]
    bundle: Bundle | None


def conversion_steps(targets: Sequence[str]) -> tuple[str, ...]:
    """Return the steps of a conversion to the named targets, in order, as `convert` reports them."""
    return ("judge", *targets, "measure", "pack")


def convert(
    source: Source | Path | str | Any,
    *,
    targets: Sequence[str] | None = None,
    samples: Samples | Path | str | None = None,
    held_out: Samples | Path | str | None = None,
    gate: Gate | None = None,
    method: CalibrationMethod = "minmax",
    keep_float: KeepFloat = (),
    sensitivity: bool = False,
    seed: int = 0,
    layout: str = "",
    embedding: str = "",
    identity: Identity | None = None,
    on_step: Callable[[str, int, int], None] = lambda _step, _done, _of: None,
    **opening: Any,
) -> Conversion:
    """Convert a trained model for the runtimes of a fleet, and judge each variant against it.

    Args:
        source: A fitted scikit-learn estimator, a PyTorch module, the path of a model's file or MLflow
            folder, or what `converters.sources.open_source` returned.
        targets: Names of `converters.targets.TARGETS`; None for all that suit the source.
        samples: Samples, or the path of a dataset file, see `converters.data.samples`: to calibrate with and,
            where ``held_out`` is None, to judge by; the seed then says which serve for what. Where both are
            None, float variants are judged on made-up samples; there are no quantized ones and no bundle.
        held_out: Samples to judge by, which training did not see.
        gate: What is demanded; None for the defaults of `Gate`.
        method: How the ranges of activations are found for int8.
        keep_float: Names of ONNX nodes that stay float in quantized variants; ``auto`` finds, for each int8
            variant that loses too much, the fewest that bring the metric back within the gate.
        sensitivity: Measure what each layer loses in int8.
        seed: Of every random choice, 0 to 2^32 - 1.
        layout: What the axes of the input of numbers are, such as ``NHWC``, see `fleet.drift.inputs`;
            empty for what the samples declare, or else the source.
        embedding: The tensor whose components are watched for drift, see `converters.embedding`; empty for
            none.
        identity: What the bundle is called and where it comes from; None names it after the source.
        on_step: Called with the name of each step when it begins, its number from 0, and how many there are.
        **opening: How to open the source, see `converters.sources.open_source`.

    Raises:
        InvalidInput: The source is no model or one that cannot be read, the samples do not suit it, or there
            is no such target or node.
        NotFound: There is no such file.
        ConversionFailed: The source cannot be converted at all.
        AccuracyTooLow: The source itself is not good enough.
    """
    if isinstance(targets, str):
        raise InvalidInput("Targets are given as a list of names.", remedy=f"Write [{targets!r:.80}].")
    opened = open_source(source, **opening)
    samples, held_out = given_samples(samples), given_samples(held_out)
    opened = _laid_out(opened, layout, [each for each in (held_out, samples) if each is not None])
    wanted = chosen_targets(targets, opened)
    steps = conversion_steps([target.name for target in wanted])

    def begin(step: str) -> None:
        on_step(step, steps.index(step), len(steps))

    pinned = frozenset() if keep_float == "auto" else frozenset(keep_float)
    check_layers(pinned, opened.onnx or b"")
    begin("judge")
    prepared = prepare(opened, samples, held_out, gate or Gate(), seed)
    headed = opened
    if embedding:
        headed, prepared = _with_head(opened, prepared, embedding)
        pinned |= {EMBEDDING}
    work = Work(headed.onnx or b"", headed.signature, prepared.calibration, method, pinned)
    candidates = []
    for target in wanted:
        begin(target.name)
        candidates.append(_built(target, work, prepared.yardstick, search_float=keep_float == "auto"))
    begin("measure")
    layers = layer_errors_of(candidates, work) if sensitivity else ()
    measure_latency(candidates, prepared.yardstick)
    begin("pack")
    bundle = pack(candidates, opened, prepared, work, identity=identity, seed=seed, embedding=embedding)
    sound = [candidate for candidate in candidates if candidate.sound]
    return Conversion(
        report=make_report(headed, candidates, prepared, work, layers=layers, seed=seed),
        models={each.target.name: each.model for each in sound if each.model is not None},
        file_names={each.target.name: each.target.file_name for each in sound},
        bundle=bundle,
    )


def _with_head(source: Source, prepared: Prepared, embedding: str) -> tuple[Source, Prepared]:
    """Return the source with its embedding head, and what it is judged by with the signature that says so."""
    headed = with_embedding(source, embedding, prepared.calibration)
    yardstick = replace(prepared.yardstick, signature=headed.signature)
    return headed, prepared._replace(yardstick=yardstick)


def _built(target: Target, work: Work, yardstick: Yardstick, *, search_float: bool) -> Candidate:
    """Return the variant, judged; an int8 one with the fewest layers in float, if those are searched for."""
    candidate = build_variant(target, work, yardstick)
    if search_float and target.quantized and target.precision == "int8":
        return with_fewest_float(candidate, work, yardstick)
    return candidate


def _laid_out(source: Source, layout: str, samples: Sequence[Samples]) -> Source:
    """Return the source with the layout of its input of numbers declared, on which drift is watched.

    What a dataset declares holds where the model takes its samples as they are, and not, say, as rows.
    """
    signature = source.signature
    given = signature.profiled_input
    if not layout and given is not None:
        declared = (each.layout for each in samples)
        layout = next((each for each in declared if each and len(each) == len(given.shape)), "")
    if not layout:
        return source
    if layout not in LAYOUTS or given is None or len(layout) != len(given.shape):
        shape = "has no input of numbers" if given is None else f"takes an input of the shape {given.shape}"
        raise InvalidInput(
            f"{source.name} {shape}, which cannot be {layout!r:.40}.",
            remedy=f"Use one of {', '.join(LAYOUTS)}, with a letter for each size.",
        )
    inputs = tuple(
        msgspec.structs.replace(tensor, layout=layout) if tensor is given else tensor
        for tensor in signature.inputs
    )
    return replace(source, signature=msgspec.structs.replace(signature, inputs=inputs))
