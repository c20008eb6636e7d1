"""Versions that do harm, for asking how much of it a gate would find.

===========================================  ==========================================================
metric                                       harm of a size
===========================================  ==========================================================
shares, such as ``inference_errors``         so much more of the answers are bad
``latency``, ``memory``                      everything takes ``2^(size/4)`` times as much, size whole
``output_drift``                             so much more, or less, of the answers are of one class
``confidence_drift``, ``input_drift``        likewise, of the values below one edge
===========================================  ==========================================================

Of drift, the class or edge is the one whose share is nearest to a half: the hardest to tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

from fleet.protocol.latency import BUCKETS_PER_OCTAVE, LAST_BUCKET
from fleet.rollout.forecast.habits import Habit, Habits
from fleet.rollout.plans.plan import Metric

_QUANTILES = (Metric.LATENCY, Metric.MEMORY)
_DRIFTS = (Metric.OUTPUT_DRIFT, Metric.CONFIDENCE_DRIFT, Metric.INPUT_DRIFT)


def sizes(metric: Metric) -> tuple[float, ...]:
    """Return the sizes of harm to try, ascending."""
    if metric in _QUANTILES:
        return tuple(float(buckets) for buckets in range(1, 4 * BUCKETS_PER_OCTAVE + 1))
    return tuple(0.001 * 1.2**step for step in range(38))  # a thousandth to nearly one


def told(metric: Metric, size: float) -> float:
    """Return a size as people are told of it: a ratio, or a difference of shares."""
    return 2.0 ** (size / BUCKETS_PER_OCTAVE) if metric in _QUANTILES else size


def harmed(habits: Habits, metric: Metric, size: float) -> Habits:
    """Return what devices would do with a version that does harm."""
    classes = {name: _harmed(habit, metric, size) for name, habit in habits.classes.items()}
    return habits._replace(whole=_harmed(habits.whole, metric, size), classes=classes)


def _harmed(habit: Habit, metric: Metric, size: float) -> Habit:
    if metric in _QUANTILES:
        cells: dict[int, float] = {}
        for cell, share in habit.cells.items():
            slower = min(LAST_BUCKET, cell + round(size))
            cells[slower] = cells.get(slower, 0.0) + share
        return _of_cells(habit, cells)
    if metric in _DRIFTS:
        return _of_cells(habit, _moved(habit.cells, metric, size))
    return habit._replace(mean=min(1.0, habit.mean + size))


def _moved(cells: Mapping[int, float], metric: Metric, size: float) -> dict[int, float]:
    """Return the cells with so much moved into some of them, or out of these."""
    names = sorted(cells)
    if metric is Metric.OUTPUT_DRIFT:
        inside = {min(names, key=lambda cell: abs(cells[cell] - 0.5))}
    else:
        below = dict(zip(names, accumulate(cells[cell] for cell in names), strict=True))
        edge = min(names, key=lambda cell: abs(below[cell] - 0.5))
        inside = {cell for cell in names if cell <= edge}
    share = sum(cells[cell] for cell in inside)
    rest = 1.0 - share
    if len(inside) == len(names):  # nothing is beside them: what leaves them is new
        return {**{cell: cells[cell] * (1.0 - size) for cell in names}, names[-1] + 1: size}
    change = min(size, rest) if share <= 0.5 else -min(size, share)
    return {
        cell: cells[cell] * (1.0 + change / share if cell in inside else 1.0 - change / rest)
        for cell in names
    }


def _of_cells(habit: Habit, cells: dict[int, float]) -> Habit:
    return habit._replace(cells=cells, mean=sum(cell * share for cell, share in cells.items()))
