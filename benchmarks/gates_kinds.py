"""Kinds of evidence that are neither failed requests nor latency: what devices count, and what harm is.

====================  ==========================================  =======================================
metric                cells                                       harm
====================  ==========================================  =======================================
label_errors          right, wrong                                6 more points are wrong
unsure, confidence    confidences by bin, near 1 mostly           15 points of the sure are in doubt
output_drift          10 classes                                  15 points of the others become class 0
input_drift           20 bins                                     none: the canaries see other inputs, which
                                                                  is no version's fault (ERROR)
memory                a reading in a window; a device has its own  it is twice as much
shadow_disagreement   alike, not alike                            14 more points, with a limit of 8
====================  ==========================================  =======================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.gates_worlds import Floats
from fleet.drift.features import CONFIDENCE_EDGES, OUTPUT_CLASS, OUTPUT_CONFIDENCE
from fleet.drift.profile import FeatureCounts
from fleet.protocol.memory import bucket_of_bytes
from fleet.protocol.records import ShadowReport, TelemetryWindow
from fleet.rollout.plans.plan import Metric, MetricGate

ANSWERS = 60
"""In a window."""
MIB = 2.0**20
INPUT = "input.0"
_DIGEST = "c" * 64


class Kind(NamedTuple):
    """A kind of evidence.

    Attributes:
        gate: The metric.
        drawn: Draws the distribution over cells, and one into which it drifts.
        harmed: Makes the new version's of it.
        told: Makes a window of counts by cell.
        answers: So many in a window.
        of_inputs: Whether what differs is no harm.
    """

    gate: MetricGate
    drawn: Callable[[np.random.Generator], tuple[Floats, Floats]]
    harmed: Callable[[Floats], Floats]
    told: Callable[[list[int]], TelemetryWindow | ShadowReport]
    answers: int = ANSWERS
    of_inputs: bool = False


def window_of(**fields: object) -> TelemetryWindow:
    """Return a minute's window of so much as is said, and else of nothing."""
    plain = {"started_at_s": 0.0, "ended_at_s": 60.0, "model": "m", "version": 1, "variant": "v"}
    return TelemetryWindow(**{**plain, "manifest_sha256": _DIGEST, **fields})  # type: ignore[arg-type]


def _shares(low: float, high: float) -> Callable[[np.random.Generator], tuple[Floats, Floats]]:
    def drawn(rng: np.random.Generator) -> tuple[Floats, Floats]:
        bad = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return np.array([1.0 - bad, bad]), np.array([1.0 - 1.5 * bad, 1.5 * bad])

    return drawn


def _spread(cells: int) -> Callable[[np.random.Generator], tuple[Floats, Floats]]:
    def drawn(rng: np.random.Generator) -> tuple[Floats, Floats]:
        first: Floats = rng.dirichlet(np.full(cells, 3.0))
        return first, 0.7 * first + 0.3 * rng.dirichlet(np.full(cells, 3.0))

    return drawn


def _confident(rng: np.random.Generator) -> tuple[Floats, Floats]:
    weights = np.exp(np.arange(len(CONFIDENCE_EDGES) + 1) * rng.uniform(0.2, 0.5))
    weights[-1] = 0.0  # nothing is above 1
    flatter = np.sqrt(weights)
    first: Floats = weights / weights.sum()
    second: Floats = 0.8 * first + 0.2 * flatter / flatter.sum()
    return first, second


def _memory(rng: np.random.Generator) -> tuple[Floats, Floats]:
    first = np.zeros(128)
    middle = bucket_of_bytes(rng.uniform(40.0, 200.0) * MIB)
    first[middle - 1 : middle + 2] = rng.dirichlet(np.full(3, 5.0))
    return first, first


def _moved(cell: int, points: float) -> Callable[[Floats], Floats]:
    """Return a harm that moves so much of all others into a cell."""

    def harmed(share: Floats) -> Floats:
        moved: Floats = share * (1.0 - points / (1.0 - share[cell]))
        moved[cell] = share[cell] + points
        return moved

    return harmed


def _larger(share: Floats) -> Floats:
    moved: Floats = np.roll(share, 4)  # four buckets are a factor of two
    return moved


def _confidences(counts: list[int]) -> TelemetryWindow:
    return window_of(predictions=sum(counts), profile={OUTPUT_CONFIDENCE: FeatureCounts(cells=counts)})


def _labels(counts: list[int]) -> TelemetryWindow:
    return window_of(predictions=sum(counts), labelled=sum(counts), correct=counts[0])


def _classes(counts: list[int]) -> TelemetryWindow:
    return window_of(predictions=sum(counts), profile={OUTPUT_CLASS: FeatureCounts(cells=counts)})


def _inputs(counts: list[int]) -> TelemetryWindow:
    return window_of(predictions=sum(counts), profile={INPUT: FeatureCounts(cells=counts)})


def _readings(counts: list[int]) -> TelemetryWindow:
    return window_of(memory={bucket: number for bucket, number in enumerate(counts) if number})


def _errors(counts: list[int]) -> TelemetryWindow:
    return window_of(predictions=counts[0], errors=counts[1])


def _shadow(counts: list[int]) -> ShadowReport:
    return ShadowReport(0.0, 60.0, "r1-0f", "m", 1, 2, _DIGEST, compared=sum(counts), disagreed=counts[1])


def _doubt(share: Floats) -> Floats:
    return _moved(8, 0.15)(share)


KINDS = (
    Kind(
        MetricGate(metric=Metric.LABEL_ERRORS, margin=0.03, limit=0.3),
        _shares(0.02, 0.1),
        _moved(1, 0.06),
        _labels,
    ),
    Kind(
        MetricGate(metric=Metric.UNSURE, margin=0.05, limit=0.5, threshold=0.5),
        _confident,
        _doubt,
        _confidences,
    ),
    Kind(MetricGate(metric=Metric.CONFIDENCE_DRIFT, margin=0.05), _confident, _doubt, _confidences),
    Kind(MetricGate(metric=Metric.OUTPUT_DRIFT, margin=0.05), _spread(10), _moved(0, 0.15), _classes),
    Kind(
        MetricGate(metric=Metric.INPUT_DRIFT, margin=0.05, feature=INPUT),
        _spread(20),
        _moved(0, 0.2),
        _inputs,
        of_inputs=True,
    ),
    Kind(
        MetricGate(
            metric=Metric.MEMORY, quantile=0.5, ratio=1.5, budget_bytes=400.0 * MIB, minimum_samples=10
        ),
        _memory,
        _larger,
        _readings,
        answers=1,
    ),
    Kind(
        MetricGate(metric=Metric.SHADOW_DISAGREEMENT, limit=0.08),
        _shares(0.005, 0.03),
        _moved(1, 0.14),
        _shadow,
    ),
)
ERRORS = Kind(
    MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.01, limit=0.15),
    _shares(0.005, 0.02),
    _moved(1, 0.03),
    _errors,
)
