"""The report of a conversion: what became of each variant, and what it was judged by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.data.batches import sample_count
from converters.judging.gate import Gate
from converters.judging.prepare import Prepared
from converters.judging.sensitivity import LayerError
from converters.judging.variant import Candidate, VariantReport, Yardstick
from converters.source import Source
from converters.target import CalibrationMethod, Work
from fleet.protocol.manifest import Evaluation, Task

LIBRARIES = ("ai-edge-litert", "ai-edge-quantizer", "numpy", "onnx", "onnxruntime")
"""What shapes every conversion; a source adds its own."""

NEAR_CHANCE = 1.5
"""Up to this many times the accuracy of guessing, something is wrong with samples or model."""


class SourceReport(msgspec.Struct, frozen=True):
    """What was converted.

    Attributes:
        name: The file or class that it came from.
        framework: What it was trained with or stored as.
        sha256: Digest of its file; empty for an object in memory.
        task: What it is for.
        size_bytes: Of the fp32 model, to which all ratios refer.
        evaluation: How the source itself does on the held-out samples; None without samples.
        cautions: What to know before trusting the conversion.
    """

    name: str
    framework: str
    sha256: str
    task: Task
    size_bytes: int
    evaluation: Evaluation | None
    cautions: tuple[str, ...] = ()


class Confusion(msgspec.Struct, frozen=True):
    """Which class was taken for which.

    Attributes:
        variant: Name of the variant; ``source`` for the source.
        counts: Shape (C, C): samples of each class, in rows, by the class answered, in columns.
    """

    variant: str
    counts: tuple[tuple[int, ...], ...]


class Report(msgspec.Struct, frozen=True):
    """Everything that was found out, as it is written to ``report.json``.

    Attributes:
        source: What was converted.
        variants: What became of each variant, in the order of the targets.
        classes: Names of the classes, of a classification.
        confusion: Of the source and each variant, of a classification with labels.
        layers: What each layer loses in int8, the worst first; empty where it was not asked for.
        dataset_sha256: Digest of the dataset file to calibrate with; empty without one.
        calibration_samples: Samples that quantization saw.
        method: How the ranges of activations were found.
        held_out_sha256: Digest of the dataset file to judge by; empty without one.
        held_out_samples: Samples that everything was judged by.
        gate: What was demanded of every variant.
        seed: Of every random choice.
        libraries: Versions of the libraries that shaped the result.
    """

    source: SourceReport
    variants: tuple[VariantReport, ...]
    classes: tuple[str, ...] = ()
    confusion: tuple[Confusion, ...] = ()
    layers: tuple[LayerError, ...] = ()
    dataset_sha256: str = ""
    calibration_samples: int = 0
    method: CalibrationMethod = "minmax"
    held_out_sha256: str = ""
    held_out_samples: int = 0
    gate: Gate = Gate()
    seed: int = 0
    libraries: dict[str, str] = {}

    def variant(self, name: str) -> VariantReport:
        """Return the report of the variant of that name; raises KeyError where there is none."""
        return {each.name: each for each in self.variants}[name]


def libraries_of(source: Source) -> dict[str, str]:
    """Return the versions of the libraries that shape a conversion of the source."""
    return {name: version(name) for name in sorted({*LIBRARIES, *source.libraries})}


def make_report(
    source: Source,
    candidates: Sequence[Candidate],
    prepared: Prepared,
    work: Work,
    *,
    layers: tuple[LayerError, ...],
    seed: int,
) -> Report:
    """Return the report.

    Args:
        source: What was converted.
        candidates: What became of each target.
        prepared: The samples.
        work: How they were built.
        layers: What each layer loses in int8.
        seed: Of every random choice.
    """
    yardstick = prepared.yardstick
    size_bytes = len(source.onnx or source.tflite or b"")
    return Report(
        source=SourceReport(
            name=source.name,
            framework=source.framework,
            sha256=source.sha256,
            task=source.signature.task,
            size_bytes=size_bytes,
            evaluation=yardstick.evaluation,
            cautions=(*source.cautions, *_doubts(yardstick)),
        ),
        variants=tuple(candidate.report(yardstick, size_bytes) for candidate in candidates),
        classes=source.signature.classes,
        confusion=_confusion(source, candidates, prepared),
        layers=layers,
        dataset_sha256=prepared.calibration_sha256,
        calibration_samples=0 if prepared.calibration is None else sample_count(prepared.calibration),
        method=work.method,
        held_out_sha256="" if yardstick.samples is None else yardstick.samples.sha256,
        held_out_samples=0 if yardstick.samples is None else len(yardstick.samples),
        gate=yardstick.gate,
        seed=seed,
        libraries=libraries_of(source),
    )


def _doubts(yardstick: Yardstick) -> Iterator[str]:
    """Yield what makes the judgement itself doubtful."""
    samples, evaluation = yardstick.samples, yardstick.evaluation
    if samples is None or evaluation is None:
        return
    allowed, count, classes = yardstick.gate.maximum_drop, len(samples), len(yardstick.signature.classes)
    if count * allowed < 1.0:
        yield (
            f"{count} samples were held out to judge by: one of them is {1 / count:.3f} of an accuracy, more"
            f" than the drop of {allowed:g} that is allowed."
        )
    if evaluation.metric == "accuracy" and evaluation.value < NEAR_CHANCE / max(classes, 1):
        yield (
            f"The model itself is right in {evaluation.value:.1%} of the samples, hardly more than by chance:"
            " are they scaled, and are their classes numbered, as in training?"
        )
    if evaluation.metric == "r2" and yardstick.signature.task == "regression" and samples.targets is None:
        yield "The dataset has no targets: r2 compares variants with the model itself, not with the truth."


def _confusion(source: Source, candidates: Sequence[Candidate], prepared: Prepared) -> tuple[Confusion, ...]:
    yardstick = prepared.yardstick
    samples = yardstick.samples
    if source.signature.task != "classification" or samples is None or samples.labels is None:
        return ()
    answers = {"source": yardstick.answers}
    answers |= {each.target.name: each.answers for each in candidates if each.answers is not None}
    return tuple(
        Confusion(name, _counted(samples.labels, values.argmax(axis=1), values.shape[1]))
        for name, values in answers.items()
    )


def _counted(
    labels: NDArray[np.int64], chosen: NDArray[np.intp], classes: int
) -> tuple[tuple[int, ...], ...]:
    counts = np.bincount(labels * classes + chosen, minlength=classes * classes)
    return tuple(tuple(row) for row in counts.reshape(classes, classes).tolist())
