"""What one window of telemetry, or one report of a shadow, says about each metric: so many bad, of so many.

=====================  ==================================  ==============================================
metric                 bad                                 of
=====================  ==================================  ==============================================
``inference_errors``   requests that the runtime failed    requests: answers given and requests failed
``label_errors``       answers that a label contradicts    answers with a label
``unsure``             answers of a confidence below the   answers whose confidence was counted; a missing
                       threshold, or of none               one (NaN) is unsure
``slow``               durations in buckets wholly above   durations
                       the budget
``latency``            (the whole histogram)               durations
``output_drift``       (the counts of each class)          answers whose class was counted
``confidence_drift``   (the counts of each bin)            answers whose confidence was counted, or missing
``input_drift``        (the counts of each bin)            values of the input, missing ones too
``memory``             (the whole histogram)               readings of the memory that the agent has
shadow_disagreement    samples on which the version and    samples that both computed in the shadow, see
                       the active one disagree             `fleet.protocol.shadow`
=====================  ==================================  ==============================================
"""

from __future__ import annotations

import msgspec

from fleet.drift.features import CONFIDENCE_EDGES, OUTPUT_CLASS, OUTPUT_CONFIDENCE
from fleet.protocol.latency import count_above
from fleet.protocol.records import ShadowReport, TelemetryWindow
from fleet.protocol.windows import contradiction
from fleet.rollout.gates.evidence import Arm, Tally
from fleet.rollout.plans.plan import Metric, MetricGate

MOST_CLASSES = 32
"""Of more classes, the last ones are counted together."""
MOST_BINS = 64
"""Likewise of bins."""


def unusable(window: TelemetryWindow) -> str | None:
    """Return why the window counts for nothing; None if it counts."""
    confidence = window.profile.get(OUTPUT_CONFIDENCE)
    if confidence is not None and len(confidence.cells) != len(CONFIDENCE_EDGES) + 1:
        return f"confidence has {len(confidence.cells)} cells in place of {len(CONFIDENCE_EDGES) + 1}"
    return contradiction(window)


def tally(window: TelemetryWindow, gate: MetricGate) -> Tally:
    """Return what a window that does not contradict itself says about one metric."""
    match gate.metric:
        case Metric.INFERENCE_ERRORS:
            return Tally.of(window.errors, window.predictions + window.errors)
        case Metric.LABEL_ERRORS:
            return Tally.of(window.labelled - window.correct, window.labelled)
        case Metric.UNSURE:
            return _unsure(window, gate)
        case Metric.SLOW:
            assert gate.budget_us is not None
            return Tally.of(count_above(window.latency, gate.budget_us), sum(window.latency.values()))
        case Metric.LATENCY:
            return Tally.of_cells(window.latency)
        case Metric.OUTPUT_DRIFT:
            return _classes(window)
        case Metric.CONFIDENCE_DRIFT:
            return _bins(window, OUTPUT_CONFIDENCE)
        case Metric.INPUT_DRIFT:
            return _bins(window, gate.feature)
        case Metric.MEMORY:
            return Tally.of_cells(window.memory_counts)
        case Metric.SHADOW_DISAGREEMENT:
            return Tally()  # see `shadowed`


def observe(arm: Arm, window: TelemetryWindow, metrics: tuple[MetricGate, ...], *, is_new: bool) -> Arm:
    """Return the arm with one more window.

    Args:
        arm: So far.
        window: From a device of this arm.
        metrics: Of the gate.
        is_new: Whether the device has not contributed to the arm before.
    """
    if unusable(window) is not None:
        return msgspec.structs.replace(arm, unusable=arm.unusable + 1)
    return arm.plus(Arm(int(is_new), 1, 0, tuple(tally(window, gate) for gate in metrics)))


def shadowed(report: ShadowReport, metrics: tuple[MetricGate, ...]) -> Arm:
    """Return what a report of a shadow that does not contradict itself adds to an arm.

    The device is no canary yet, so it is not counted as one.
    """
    said = Tally.of(report.disagreed, report.compared)
    return Arm(0, 0, 0, tuple(said if m.metric is Metric.SHADOW_DISAGREEMENT else Tally() for m in metrics))


def _unsure(window: TelemetryWindow, gate: MetricGate) -> Tally:
    confidence = window.profile.get(OUTPUT_CONFIDENCE)
    if confidence is None:
        return Tally()
    assert gate.threshold is not None
    below = 1 + CONFIDENCE_EDGES.index(gate.threshold)  # cell 0, and the bins up to the threshold
    bad = sum(confidence.cells[:below]) + confidence.missing
    return Tally.of(bad, confidence.total + confidence.missing)


def _classes(window: TelemetryWindow) -> Tally:
    """Two versions of a model are compared class by class; the cell of unseen ones is a class as well."""
    classes = window.profile.get(OUTPUT_CLASS)
    cells: dict[int, int] = {}
    for number, count in enumerate(classes.cells if classes is not None else ()):
        if count:
            cell = min(number, MOST_CLASSES - 1)
            cells[cell] = cells.get(cell, 0) + count
    return Tally.of_cells(cells) if cells else Tally()


def _bins(window: TelemetryWindow, feature: str) -> Tally:
    """Count a feature's bins in ascending order; missing values come before the least."""
    counts = window.profile.get(feature)
    if counts is None:
        return Tally()
    cells: dict[int, int] = {}
    for number, count in enumerate((counts.missing, *counts.cells)):
        if count:
            cell = min(number, MOST_BINS - 1)
            cells[cell] = cells.get(cell, 0) + count
    return Tally.of_cells(cells) if cells else Tally()
