"""One variant: built, run on the held-out samples, judged against the source, described."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.data.batches import in_batches, sample_count
from converters.data.samples import Inputs, Samples
from converters.judging.embedding import check_embedding
from converters.judging.evaluate import evaluate
from converters.judging.gate import Gate, check_parity, parity
from converters.judging.golden import Expected
from converters.runtimes.onnx import ONNXRUNTIME
from converters.runtimes.runtime import BATCH, Footprint, Session
from converters.target import Target, Work
from fleet.protocol.errors import ConversionFailed, ModelError
from fleet.protocol.manifest import Evaluation, Signature
from fleet.protocol.requirement import RuntimeRequirement

QUANTIZED_TOLERANCE = 0.1
"""How far the outputs after the first of a quantized variant, which no metric judges, may be from fp32."""

_DISCONTINUOUS = "TreeEnsemble"
"""Operators of this name are step functions, see `converters.judging.gate`."""


class VariantReport(msgspec.Struct, frozen=True):
    """What became of one variant.

    Attributes:
        name: Name of the variant, which is its target's.
        precision: Of its weights.
        packed: Whether it passed.
        reason: Why it did not, for people; empty if it did.
        code: Why it did not, as the code of an error; empty if it did.
        cautions: What to know before choosing it, in whole sentences.
        size_bytes: Size of its model; None if it could not be built.
        ratio: That size against the fp32 model's.
        parity: How far its numbers are from the source's, see `converters.judging.gate.parity`.
        evaluation: How it did; None if it could not be run, or without samples.
        drop: Loss of the metric against the source.
        latency_us: Median time of one answer to one sample, or to one batch where that is fixed, by runtime
            here; not part of the bundle.
        kept_float: Layers that stay float in a quantized variant.
        golden_tolerance: Tolerance of its self-test; None if it is not in a bundle.
        requirement: What a device must have; None if it could not be built.
        duration_s: What building it took.
        embedding_difference: How far its embedding is from the fp32 graph's, see
            `converters.judging.embedding`; None of a model that has none, or if it is too far.
    """

    name: str
    precision: str
    packed: bool
    reason: str = ""
    code: str = ""
    cautions: tuple[str, ...] = ()
    size_bytes: int | None = None
    ratio: float | None = None
    parity: float | None = None
    evaluation: Evaluation | None = None
    drop: float | None = None
    latency_us: dict[str, float] = {}
    kept_float: tuple[str, ...] = ()
    golden_tolerance: float | None = None
    requirement: RuntimeRequirement | None = None
    duration_s: float = 0.0
    embedding_difference: float | None = None


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What variants are judged by.

    Attributes:
        signature: What the model takes and gives.
        inputs: The held-out samples as the model takes them.
        answers: The source's answers to them.
        samples: The same samples with their truth; None where they were made up.
        evaluation: How the source does; None likewise.
        gate: What is demanded.
    """

    signature: Signature
    inputs: Inputs
    answers: NDArray[Any]
    samples: Samples | None
    evaluation: Evaluation | None
    gate: Gate

    def evaluated(self, answers: NDArray[Any]) -> Evaluation | None:
        """Return how answers do; None without real samples.

        Raises:
            InvalidDataset: The samples' truth does not suit the model.
        """
        if self.samples is None:
            return None
        return evaluate(
            self.signature,
            answers,
            samples=self.samples,
            inputs=self.inputs,
            source_answers=self.answers,
        )


@dataclass(eq=False)
class Candidate:
    """A variant on its way through building and judging; what is not known yet is None.

    Attributes:
        target: What it is.
        model: Its bytes.
        session: It, loaded.
        footprint: What it asks of a device.
        answers: What it answers to the held-out samples.
        embedding: What its head makes of them, shape (N, K); None of a model that has none.
        embedding_difference: How far that is from the fp32 graph's.
        parity: How far that is from the source, see `converters.judging.gate.parity`.
        evaluation: How it does.
        expected: What its self-test has to give.
        kept_float: Layers that stay float.
        cautions: What to know before choosing it.
        failure: Why it is not sound; None while it is.
        latency_us: Median time of one answer here.
        duration_s: What building it took.
    """

    target: Target
    model: bytes | None = None
    session: Session | None = None
    footprint: Footprint | None = None
    answers: NDArray[Any] | None = None
    embedding: NDArray[Any] | None = None
    embedding_difference: float | None = None
    parity: float | None = None
    evaluation: Evaluation | None = None
    expected: Expected | None = None
    kept_float: tuple[str, ...] = ()
    cautions: list[str] = field(default_factory=list)
    failure: ModelError | None = None
    latency_us: float | None = None
    duration_s: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing has been found against it."""
        return self.failure is None

    def report(self, yardstick: Yardstick, fp32_size_bytes: int) -> VariantReport:
        """Return what became of it.

        Args:
            yardstick: What it was judged by.
            fp32_size_bytes: What its size is compared with.
        """
        size_bytes = None if self.model is None else len(self.model)
        drop = None
        if self.evaluation is not None and yardstick.evaluation is not None:
            drop = yardstick.evaluation.value - self.evaluation.value
        return VariantReport(
            name=self.target.name,
            precision=self.target.precision,
            packed=self.sound,
            reason="" if self.failure is None else str(self.failure),
            code="" if self.failure is None else self.failure.code,
            cautions=tuple(self.cautions),
            size_bytes=size_bytes,
            ratio=None if size_bytes is None else size_bytes / fp32_size_bytes,
            parity=self.parity,
            evaluation=self.evaluation,
            drop=drop,
            latency_us={} if self.latency_us is None else {self.target.runtime.name: self.latency_us},
            kept_float=self.kept_float,
            golden_tolerance=None if self.expected is None else self.expected.tolerance,
            requirement=self.requirement(),
            duration_s=self.duration_s,
            embedding_difference=self.embedding_difference,
        )

    def requirement(self) -> RuntimeRequirement | None:
        """Return what a device must have; None if it could not be built."""
        if self.model is None or self.footprint is None:
            return None
        return RuntimeRequirement(
            runtimes=self.footprint.runtimes,
            size_bytes=len(self.model),
            peak_memory_bytes=self.footprint.peak_memory_bytes,
            operators=self.footprint.operators,
        )


def build_variant(target: Target, work: Work, yardstick: Yardstick) -> Candidate:
    """Build and judge a variant; one that fails carries the reason.

    Args:
        target: What to build.
        work: What from.
        yardstick: What it is judged by.
    """
    candidate = Candidate(target)
    started_s = time.perf_counter()
    try:
        candidate.kept_float = tuple(sorted(work.keep_float)) if target.quantized else ()
        candidate.model = target.build(work)
        candidate.duration_s = time.perf_counter() - started_s
        if target.precision == "fp16" and not target.as_it_is and work.calibration is None:
            candidate.cautions.append("Whether it overflows was not checked: that takes samples.")
        candidate.footprint = target.runtime.footprint(candidate.model, work.signature)
        candidate.session = target.runtime.open(candidate.model, work.signature)
        candidate.answers = answer(candidate.session, yardstick.inputs)
        _judge(candidate, yardstick)
        _judge_further(candidate, work, yardstick)
        _judge_embedding(candidate, work, yardstick)
    except ModelError as error:
        candidate.failure = error
    return candidate


def _judge(candidate: Candidate, yardstick: Yardstick) -> None:
    """Measure parity and metric, then apply the gate.

    Raises:
        ConversionFailed: It has not the source's numbers.
        AccuracyTooLow: It does not do the job as well.
    """
    assert candidate.answers is not None
    assert candidate.footprint is not None
    steps = any(_DISCONTINUOUS in operator for operator in candidate.footprint.operators)
    candidate.parity = parity(candidate.answers, yardstick.answers, discontinuous=steps)
    candidate.evaluation = yardstick.evaluated(candidate.answers)
    tolerance = candidate.target.parity_tolerance
    if tolerance is not None:
        check_parity(candidate.parity, tolerance)
    elif candidate.evaluation is None:
        raise ConversionFailed(
            "A quantized variant cannot be judged without samples.", remedy="Give a dataset."
        )
    if candidate.evaluation is not None and yardstick.evaluation is not None:
        yardstick.gate.check_metric(candidate.evaluation, yardstick.evaluation)


def _judge_further(candidate: Candidate, work: Work, yardstick: Yardstick) -> None:
    """Compare the outputs after the first with those of the fp32 graph: devices serve them too.

    Raises:
        ConversionFailed: One of them differs.
    """
    assert candidate.model is not None
    target = candidate.target
    if target.as_it_is:
        return
    tolerance = target.parity_tolerance or QUANTIZED_TOLERANCE
    for output in yardstick.signature.outputs[1:]:
        signature = msgspec.structs.replace(yardstick.signature, outputs=(output,))
        given = answer(target.runtime.open(candidate.model, signature), yardstick.inputs)
        wanted = answer(ONNXRUNTIME.open(work.onnx, signature), yardstick.inputs)
        differs = parity(given, wanted)
        if not differs <= tolerance:
            raise ConversionFailed(
                f"Output {output.name!r} differs from the source's by {differs:.3g};"
                f" {tolerance:g} is allowed."
            )


def _judge_embedding(candidate: Candidate, work: Work, yardstick: Yardstick) -> None:
    """Run the head on the held-out samples, and compare it with the fp32 graph's: all share one reference.

    Raises:
        ConversionFailed: A component differs too much, or is not finite.
    """
    tensor = work.signature.embedding
    if tensor is msgspec.UNSET:
        return
    assert candidate.model is not None
    target = candidate.target
    signature = msgspec.structs.replace(work.signature, outputs=(tensor,))
    candidate.embedding = answer(target.runtime.open(candidate.model, signature), yardstick.inputs)
    wanted = answer(ONNXRUNTIME.open(work.onnx, signature), yardstick.inputs)
    candidate.embedding_difference = check_embedding(candidate.embedding, wanted, target.precision)


def answer(session: Session, inputs: Inputs) -> NDArray[Any]:
    """Return a session's answers, shape (N, …), batch by batch.

    Args:
        session: The model.
        inputs: N samples.

    Raises:
        ConversionFailed: It cannot be run, or answers with something else than finite numbers.
    """
    answers = np.concatenate([session.run(batch) for batch in in_batches(inputs, BATCH)])
    if len(answers) != sample_count(inputs):
        raise ConversionFailed(f"The model gives {len(answers)} answers to {sample_count(inputs)} samples.")
    if not np.isfinite(answers).all():
        raise ConversionFailed("The model answers with values that are not finite.")
    return answers
