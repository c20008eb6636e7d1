"""What one window of telemetry says about each metric: so many bad, of so many.

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

A window counts for `MOST_ANSWERS` at most; of more, the shares alone count. So many answers of one device are
worth what it can be worth (`fleet.rollout.gates.dispersion`); and a window that claims thousands of times
what all others do would be nearly the whole of its arm, in which no difference of devices is to be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from fleet.drift.features import CONFIDENCE_EDGES, OUTPUT_CLASS, OUTPUT_CONFIDENCE
from fleet.protocol.latency import bucket, count_above
from fleet.protocol.records import TelemetryWindow
from fleet.protocol.windows import contradiction
from fleet.rollout.plans.plan import Metric, MetricGate

MOST_ANSWERS = 100_000
"""For more of them, a window counts as if it had so many."""
MOST_CLASSES = 32
"""Of more classes, the last ones are counted together."""
MOST_BINS = 64
"""Likewise of bins."""

Said = tuple[int, int, dict[int, int]]
"""``bad``, ``total`` and ``cells`` of a `Tally`."""
_NO_CELLS: dict[int, int] = {}
_NOTHING: Said = (0, 0, _NO_CELLS)


def unusable(window: TelemetryWindow) -> str | None:
    """Return why the window counts for nothing; None if it counts."""
    confidence = window.profile.get(OUTPUT_CONFIDENCE)
    if confidence is not None and len(confidence.cells) != len(CONFIDENCE_EDGES) + 1:
        return f"confidence has {len(confidence.cells)} cells in place of {len(CONFIDENCE_EDGES) + 1}"
    return contradiction(window)


@lru_cache(maxsize=256)
def reader(gate: MetricGate) -> Callable[[TelemetryWindow], Said]:
    """Return what reads one metric out of any window that does not contradict itself."""
    match gate.metric:
        case Metric.INFERENCE_ERRORS:
            return _errors
        case Metric.SLOW:
            assert gate.budget_us is not None
            return partial(_slow, last=bucket(gate.budget_us))
        case Metric.LABEL_ERRORS:
            return lambda window: (window.labelled - window.correct, window.labelled, _NO_CELLS)
        case Metric.UNSURE:
            return partial(_unsure, gate=gate)
        case Metric.LATENCY:
            return lambda window: _histogram(window.latency)
        case Metric.OUTPUT_DRIFT:
            return _classes
        case Metric.CONFIDENCE_DRIFT:
            return partial(_bins, feature=OUTPUT_CONFIDENCE)
        case Metric.INPUT_DRIFT:
            return partial(_bins, feature=gate.feature)
        case Metric.MEMORY:
            return lambda window: _histogram(window.memory_counts)
        case Metric.SHADOW_DISAGREEMENT:
            return lambda _: _NOTHING  # shadows say it, in reports of their own


def bounded(bad: int, total: int, cells: dict[int, int]) -> Said:
    """Return what a window of more than `MOST_ANSWERS` says as it counts."""
    share = MOST_ANSWERS / total
    if not cells:
        return round(bad * share), MOST_ANSWERS, cells
    scaled = {cell: round(number * share) for cell, number in cells.items()}
    return _histogram({cell: number for cell, number in scaled.items() if number})


def _errors(window: TelemetryWindow) -> Said:
    return window.errors, window.predictions + window.errors, _NO_CELLS


def _slow(window: TelemetryWindow, last: int) -> Said:
    return *count_above(window.latency, last), _NO_CELLS


def _histogram(cells: dict[int, int]) -> Said:
    return sum(cell * number for cell, number in cells.items()), sum(cells.values()), cells


def _unsure(window: TelemetryWindow, gate: MetricGate) -> Said:
    confidence = window.profile.get(OUTPUT_CONFIDENCE)
    if confidence is None:
        return _NOTHING
    assert gate.threshold is not None
    below = 1 + CONFIDENCE_EDGES.index(gate.threshold)  # cell 0, and the bins up to the threshold
    bad = sum(confidence.cells[:below]) + confidence.missing
    return bad, confidence.total + confidence.missing, _NO_CELLS


def _classes(window: TelemetryWindow) -> Said:
    """Two versions of a model are compared class by class; the cell of unseen ones is a class as well."""
    classes = window.profile.get(OUTPUT_CLASS)
    return _binned(classes.cells if classes is not None else (), MOST_CLASSES)


def _bins(window: TelemetryWindow, feature: str) -> Said:
    """Count a feature's bins in ascending order; missing values come before the least."""
    counts = window.profile.get(feature)
    return _binned((counts.missing, *counts.cells) if counts is not None else (), MOST_BINS)


def _binned(counts: Sequence[int], most: int) -> Said:
    """Return a histogram of so many cells at most; what is beyond them falls into the last."""
    cells = {cell: count for cell, count in enumerate(counts[: most - 1]) if count}
    if beyond := sum(counts[most - 1 :]):
        cells[most - 1] = beyond
    return _histogram(cells)
