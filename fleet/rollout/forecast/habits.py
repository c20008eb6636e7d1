"""What devices do now: how much they answer, how much of it is bad, and how far they differ.

Read from windows that were added up, of each device over spans of time such as an hour. What differs between
spans counts for nothing, as it does for the gate, which compares within spans of a stage; so each class of
devices has a share of its own in each span (`fleet.rollout.gates.dispersion`).

The metrics and what they count are the gate's own (`fleet.rollout.gates.windows`). Of drift, which is as hard
to tell as its hardest share, no more than `MOST_CELLS` are kept: neighbouring bins are put together at about
the same share each, and so are all classes but the most frequent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from statistics import fmean
from typing import NamedTuple

import numpy as np

from fleet.protocol.records import TelemetryWindow
from fleet.rollout.gates.counts import Part, flattened_parts
from fleet.rollout.gates.dispersion import correlation
from fleet.rollout.gates.evidence import Tally
from fleet.rollout.gates.sums import TallySum
from fleet.rollout.gates.windows import Said, reader
from fleet.rollout.plans.plan import Metric, MetricGate

MOST_CELLS = 8
_SO_MANY = np.array(1e9)
"""Devices enough for the estimate of their correlation to be taken as it is."""
_LEAST_SPAN_S = 60.0
_EDGE = 0.1
_DRIFTS = (Metric.OUTPUT_DRIFT, Metric.CONFIDENCE_DRIFT, Metric.INPUT_DRIFT)


class Asked(NamedTuple):
    """A device of which it is asked what it does.

    Attributes:
        stratum: Its class; empty for none.
        version: That it runs.
    """

    stratum: str
    version: int


class Heard(NamedTuple):
    """What one device told of the version that it runs, over a span of time.

    Attributes:
        device_id: The device.
        start_s: Where the span begins; the same for all devices.
        window: The windows of it, added up.
    """

    device_id: str
    start_s: float
    window: TelemetryWindow


class Habit(NamedTuple):
    """What the devices of a class do, of one metric.

    Attributes:
        heard_share: Which part of the devices said anything, 0 to 1.
        mean: Share of bad answers; of a histogram the mean of the numbers of its cells.
        cells: Of a histogram the share of each cell; empty otherwise.
        per_s: Answers of one device in a second, on average.
        uneven: Mean of the squares of that by the square of the mean: 1 if all answer alike.
    """

    heard_share: float
    mean: float
    cells: Mapping[int, float]
    per_s: float
    uneven: float

    @property
    def variance(self) -> float:
        """Of one answer."""
        if not self.cells:
            return self.mean * (1.0 - self.mean)
        square = sum(cell * cell * share for cell, share in self.cells.items())
        return max(0.0, square - self.mean * self.mean)


class Habits(NamedTuple):
    """What devices do, of one metric.

    Attributes:
        devices: How many said anything.
        whole: All of them.
        classes: Those of each class that was heard of.
        correlation: Of the answers of one device, see `fleet.rollout.gates.dispersion`; None if no two
            devices of a class were heard of.
        low: A tenth of the devices have no higher share of bad answers; None for histograms.
        high: Nine tenths have none.
    """

    devices: int
    whole: Habit
    classes: Mapping[str, Habit]
    correlation: float | None
    low: float | None
    high: float | None


class _Said(NamedTuple):
    device_id: str
    stratum: str
    start_s: float
    window: TelemetryWindow
    said: Said


class _Device(NamedTuple):
    stratum: str
    tally: Tally
    per_s: float


class _Time:
    """What one device said in all, and from when to when, as its windows add up to it."""

    __slots__ = ("first_s", "last_s", "stratum", "sum")

    def __init__(self, one: _Said) -> None:
        self.stratum, self.sum = one.stratum, TallySum()
        self.first_s, self.last_s = one.window.started_at_s, one.window.ended_at_s

    def add(self, one: _Said) -> None:
        self.sum.add(*one.said)
        self.first_s = min(self.first_s, one.window.started_at_s)
        self.last_s = max(self.last_s, one.window.ended_at_s)


def habits_of(gate: MetricGate, asked: Mapping[str, Asked], heard: Iterable[Heard]) -> Habits | None:
    """Return what devices do; None if none of them said anything of the metric.

    Args:
        gate: Of the metric.
        asked: Every device that was asked about.
        heard: What those of them said that said anything.
    """
    read = reader(gate)
    told = [
        _Said(one.device_id, asked[one.device_id].stratum, one.start_s, one.window, said)
        for one in heard
        if (said := read(one.window))[1]
    ]
    devices = _devices(told)
    if not devices:
        return None
    by_class: dict[str, list[_Device]] = {}
    for device in devices.values():
        by_class.setdefault(device.stratum, []).append(device)
    sizes = Counter(one.stratum for one in asked.values())
    beyond_first = sum(len(members) - 1 for members in by_class.values())
    shares = sorted(device.tally.bad / device.tally.total for device in devices.values())
    whole = _habit(list(devices.values()), len(asked))
    kept = _kept_cells(gate.metric, whole.cells)
    is_histogram = bool(whole.cells)
    return Habits(
        devices=len(devices),
        whole=_put_together(whole, kept),
        classes={
            name: _put_together(_habit(members, sizes[name]), kept) for name, members in by_class.items()
        },
        correlation=float(correlation(flattened_parts(_parts(told)), _SO_MANY)) if beyond_first else None,
        low=None if is_histogram else _quantile(shares, _EDGE),
        high=None if is_histogram else _quantile(shares, 1.0 - _EDGE),
    )


def _devices(told: Iterable[_Said]) -> dict[str, _Device]:
    """Return what each device said in all, and how much in a second from its first to its last word."""
    times: dict[str, _Time] = {}
    for one in told:
        if (known := times.get(one.device_id)) is None:
            known = times[one.device_id] = _Time(one)
        known.add(one)
    found: dict[str, _Device] = {}
    for device_id, known in times.items():
        said = known.sum.tally()
        per_s = said.total / max(_LEAST_SPAN_S, known.last_s - known.first_s)
        found[device_id] = _Device(known.stratum, said, per_s)
    return found


def _habit(devices: list[_Device], asked: int) -> Habit:
    both = TallySum()
    for device in devices:
        both.add(device.tally.bad, device.tally.total, device.tally.cells)
    said = both.tally()
    per_s = fmean(device.per_s for device in devices)
    return Habit(
        heard_share=len(devices) / asked,
        mean=said.bad / said.total,
        cells={cell: number / said.total for cell, number in said.cells.items()},
        per_s=per_s,
        uneven=fmean(device.per_s**2 for device in devices) / per_s**2,
    )


def _kept_cells(metric: Metric, cells: Mapping[int, float]) -> dict[int, int]:
    """Return into which cell each cell goes; nothing where all are kept."""
    if metric not in _DRIFTS or len(cells) <= MOST_CELLS:
        return {}
    if metric is Metric.OUTPUT_DRIFT:
        ranked = sorted(cells, key=lambda cell: -cells[cell])
        return {cell: cell if place < MOST_CELLS - 1 else ranked[-1] for place, cell in enumerate(ranked)}
    ascending = sorted(cells)
    ends = accumulate(cells[cell] for cell in ascending)
    return {
        cell: min(MOST_CELLS - 1, int(MOST_CELLS * (end - cells[cell] / 2.0)))
        for cell, end in zip(ascending, ends, strict=True)
    }


def _put_together(habit: Habit, kept: Mapping[int, int]) -> Habit:
    if not kept:
        return habit
    cells: dict[int, float] = {}
    for cell, share in habit.cells.items():
        cells[kept[cell]] = cells.get(kept[cell], 0.0) + share
    return habit._replace(cells=cells, mean=sum(cell * share for cell, share in cells.items()))


def _parts(told: Iterable[_Said]) -> list[Part]:
    """Return what each class said in each span."""
    sums: dict[tuple[str, float], TallySum] = {}
    for one in told:
        place = one.stratum, one.start_s
        if (known := sums.get(place)) is None:
            known = sums[place] = TallySum()
        known.add(*one.said)
    return [Part(one.added, one.added, one.tally()) for one in sums.values()]


def _quantile(ascending: list[float], q: float) -> float:
    return ascending[round(q * (len(ascending) - 1))]
