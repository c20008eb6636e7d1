"""The registry of targets, and which of them suit a source."""

from __future__ import annotations

from collections.abc import Sequence

from converters.runtimes.onnx import ONNXRUNTIME
from converters.runtimes.tflite import LITERT
from converters.source import Source
from converters.target import Target
from converters.targets import (
    onnx_fp16,
    onnx_fp32,
    onnx_int4,
    onnx_int8,
    ort,
    tflite_fp16,
    tflite_fp32,
    tflite_int8,
)
from fleet.protocol.errors import InvalidInput

TARGETS: dict[str, Target] = {
    module.TARGET.name: module.TARGET
    for module in (
        onnx_fp32,
        onnx_fp16,
        onnx_int8,
        onnx_int4,
        ort,
        tflite_fp32,
        tflite_fp16,
        tflite_int8,
    )
}


def chosen_targets(names: Sequence[str] | None, source: Source) -> tuple[Target, ...]:
    """Return the targets of a conversion.

    A source that is a TFLite file, or not in fp32 any more, cannot be converted any further: it is taken as
    it is, judged, and packed.

    Args:
        names: Names of `TARGETS`; None for all that suit the source.
        source: The model.

    Raises:
        InvalidInput: There is no such target, or it does not suit the source.
    """
    suitable = _as_it_is(source) if source.onnx is None or source.precision != "fp32" else TARGETS
    wanted = tuple(suitable) if names is None else tuple(dict.fromkeys(names))
    for name in wanted:
        if name not in suitable:
            raise InvalidInput(
                f"There is no target {name!r:.80} for {source.name}.", remedy=f"Use: {', '.join(suitable)}."
            )
    return tuple(suitable[name] for name in wanted)


def _as_it_is(source: Source) -> dict[str, Target]:
    """Return the one target of a source that is in its final form."""
    family, runtime, model = (
        ("onnx", ONNXRUNTIME, source.onnx) if source.onnx is not None else ("tflite", LITERT, source.tflite)
    )
    assert model is not None
    name = f"{family}-{source.precision}"
    target = Target(
        name,
        source.precision,
        runtime,
        f"model.{family}",
        calibrated=False,
        build=lambda _: model,
        as_it_is=True,
    )
    return {name: target}
