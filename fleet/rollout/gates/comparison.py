"""Canaries beside controls, the whole and each class of devices, in effective counts; and the evidence.

**Classes.** Harm may sit in one hardware class only. Every stratum of which both arms have the metric's
``minimum_samples`` is a class and compared on its own, and all of them together are the whole. The
canaries of a small stage are another mix of classes than the controls, so the whole is standardized: the
controls' share is the mean of the classes' shares, weighted as the canaries are,

    b = sum w_s b_s        worth        n = 1 / sum (w_s² / n_s)        independent answers,

with w_s the class's part of the canaries' effective answers (direct standardization). Spans of a stage
(`fleet.rollout.gates.spans`) are standardized likewise, of the whole and of each class. Devices of strata
that are no class are compared as if they were one class, and left out of the whole while their controls are
too few: compared with devices of other classes, a harmless version could look harmful. Of the canaries,
whose classes have shares of their own, only the mean share is bounded, which is all that a bet needs
(`fleet.rollout.gates.eprocess`).

**Effective counts** are counts by the weight that `fleet.rollout.gates.dispersion` gives them.

**One metric, many pairs.** Shares are compared by the margin, latency and memory by their quantile. Drift of
the output compares the share of every class, upwards and downwards, drift of confidences and inputs the
share below every edge of a bin, so that the margin bounds the distance of the two distributions
(Kolmogorov's, at the edges): the evidence of drift is the mean of the e-values, and the evidence that there
is none is the least of them, for all hypotheses have to be rejected.

**Memory** is read once in a window, and what a device needs today it needs tomorrow: its readings count for
one, whatever their number.

**The shadow** compares the version with the active one on the same samples of the same device. That needs no
control: the share that disagrees is held against the limit.

**Controls of another hour.** What comes over canaries and controls alike, an outage of a network, is the
fault of neither, but controls of earlier stages were spared it. Against them the evidence of harm is the
least of two: that the canaries are worse than those, and that they are beyond the metric's absolute limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

from fleet.protocol.latency import bucket
from fleet.protocol.memory import bucket_of_bytes
from fleet.rollout.gates.dispersion import Part, correlation, weight
from fleet.rollout.gates.eprocess import (
    NOTHING,
    Counts,
    Evidences,
    against_control,
    against_limit,
    mean,
    of_quantiles,
)
from fleet.rollout.gates.evidence import Arm, Evidence, Tally
from fleet.rollout.plans.plan import Metric, MetricGate

WHOLE = ""
"""The name of all classes together."""
NO_PART = Part(0, 0, Tally())
NO_EVIDENCE = Evidence.empty(0)


class Basis(StrEnum):
    """What the canaries are compared with, see `fleet.rollout.gates.gate`."""

    CONCURRENT = "concurrent"
    EARLIER = "earlier"
    LIMIT = "limit"


class Compared(NamedTuple):
    """A class, or the whole, compared.

    Attributes:
        name: Of the class, or `WHOLE`.
        canary: What the canaries said.
        control: What the controls said; nothing where the basis is LIMIT.
        evidences: What follows.
    """

    name: str
    canary: Part
    control: Part
    evidences: Evidences


class _Side(NamedTuple):
    """Effective counts."""

    bad: float
    total: float
    cells: Mapping[int, float]

    def times(self, factor: float) -> _Side:
        return _Side(self.bad * factor, self.total * factor, {c: n * factor for c, n in self.cells.items()})

    def plus(self, other: _Side) -> _Side:
        cells = {
            c: self.cells.get(c, 0) + other.cells.get(c, 0) for c in self.cells.keys() | other.cells.keys()
        }
        return _Side(self.bad + other.bad, self.total + other.total, cells)


_EMPTY = _Side(0.0, 0.0, {})
_Pair = tuple[Part, Part]


class _Class(NamedTuple):
    """Devices of one class, of none, or all.

    Attributes:
        whole: What canaries and controls said during the stage.
        spans: The same in each span; devices that were heard of in an earlier one are not counted again.
    """

    whole: _Pair
    spans: list[_Pair]

    def minus(self, other: _Class) -> _Class:
        return _Class(
            _less(self.whole, other.whole),
            [_less(*pairs) for pairs in zip(self.spans, other.spans, strict=True)],
        )

    def sides(self, rho: float) -> list[tuple[_Side, _Side]]:
        """Return effective counts by span; what an answer is worth follows from all that a device gave."""
        worth = [weight(part, rho) for part in self.whole]
        canaries, controls = ([_side(pair[arm], worth[arm]) for pair in self.spans] for arm in (0, 1))
        return list(zip(canaries, controls, strict=True))


_Classes = dict[str, _Class]
"""By name; under `WHOLE`, all devices."""


def _less(pair: _Pair, other: _Pair) -> _Pair:
    return pair[0].minus(other[0]), pair[1].minus(other[1])


def _side(part: Part, worth: float) -> _Side:
    return _Side(part.tally.bad, part.tally.total, part.tally.cells).times(worth)


def compare(
    gate: MetricGate, place: int, basis: Basis, evidence: Evidence, left_out: Sequence[Evidence] = ()
) -> list[list[Compared]]:
    """Return the whole, and after it the classes if there is more than one; a list for each part left out.

    Args:
        gate: Of the metric.
        place: Of the metric in the arms' tallies.
        basis: What to compare with.
        evidence: The canaries, and the controls to compare with; none where the basis is LIMIT.
        left_out: Parts of the evidence. If there are any, it is compared without each of them in its turn,
            and not whole.
    """
    every = _by_class(evidence, evidence, place)
    parts = [_by_class(part, evidence, place) for part in left_out]
    views = [{name: one.minus(part[name]) for name, one in every.items()} for part in parts] or [every]
    shown: list[_Classes] = []
    sides: list[tuple[_Side, _Side]] = []
    for view in views:
        named, found = _mixed(gate, basis, view)
        shown.append(named)
        sides += found
    evidences = _evidences(gate, basis, sides)
    if basis is Basis.EARLIER:
        beyond = _evidences(gate, Basis.LIMIT, sides)
        evidences = [
            Evidences(min(one.harm, two.harm), one.safety) for one, two in zip(evidences, beyond, strict=True)
        ]
    following = iter(evidences)
    return [
        [Compared(name, *one.whole, next(following)) for name, one in classes.items()] for classes in shown
    ]


def _mixed(gate: MetricGate, basis: Basis, view: _Classes) -> tuple[_Classes, list[tuple[_Side, _Side]]]:
    """Return the whole and the classes that are compared, and both sides of each in effective counts."""
    names = _names(gate, basis, view)
    classes = {name: view[name] for name in names}
    mixed, rest = [*classes.values()], view[WHOLE]
    for one in mixed:
        rest = rest.minus(one)
    if not names or basis is Basis.LIMIT or rest.whole[1].tally.total >= gate.minimum_samples:
        mixed.append(rest)
    rho = 1.0 if gate.metric is Metric.MEMORY else _correlation(mixed)
    by_class = [one.sides(rho) for one in mixed]
    sides = [_standardized([pair for pairs in by_class for pair in pairs])]
    sides += [_standardized(pairs) for pairs in by_class[: len(names)]]
    return {WHOLE: view[WHOLE]} | classes, sides


def bucket_of_budget(gate: MetricGate) -> int:
    """Return the last bucket of latency, or of memory, that is not beyond a metric's absolute budget."""
    if gate.metric is Metric.MEMORY:
        assert gate.budget_bytes is not None
        return bucket_of_bytes(gate.budget_bytes)
    assert gate.budget_us is not None
    return bucket(gate.budget_us)


def _by_class(of: Evidence, whole: Evidence, place: int) -> _Classes:
    """Return what the devices of each class said, of the classes and in the spans that the whole has."""
    numbers = sorted(whole.spans, reverse=True) if len(whole.spans) > 1 else []
    spans = [of.spans.get(number, NO_EVIDENCE) for number in numbers] or [of]

    def part(arm: Arm | None) -> Part:
        return (
            NO_PART if arm is None or not arm.tallies else Part(arm.devices, arm.windows, arm.tallies[place])
        )

    def within(name: str) -> _Class:
        pairs = [(part(_in(one.canary, name)), part(_in(one.control, name))) for one in (of, *spans)]
        return _Class(pairs[0], pairs[1:])

    return {
        name: within(name)
        for name in (WHOLE, *sorted(whole.canary.strata.keys() | whole.control.strata.keys()))
    }


def _in(arm: Arm, name: str) -> Arm | None:
    return arm.strata.get(name) if name else arm


def _names(gate: MetricGate, basis: Basis, view: _Classes) -> list[str]:
    """Return the classes that enough was heard of, if there are several."""

    def is_heard(one: _Class) -> bool:
        needs = one.whole[:1] if basis is Basis.LIMIT else one.whole
        return all(part.tally.total >= gate.minimum_samples for part in needs)

    return [name for name, one in view.items() if name and is_heard(one)] if len(view) > 2 else []


def _correlation(classes: list[_Class]) -> float:
    """Return rho; a device is counted once, in however many spans it was heard of."""
    parts = [
        part._replace(devices=whole.devices)
        for one in classes
        for pair in one.spans
        for part, whole in zip(pair, one.whole, strict=True)
    ]
    return correlation(parts, sum(max(0, part.devices - 1) for one in classes for part in one.whole))


def _standardized(pairs: list[tuple[_Side, _Side]]) -> tuple[_Side, _Side]:
    """Return both sides whole, the controls' as if they were mixed as the canaries are."""
    if len(pairs) == 1:
        return pairs[0]
    if any(beside.total > 0 for _, beside in pairs):
        pairs = [(side, beside) for side, beside in pairs if side.total > 0 and beside.total > 0]
    canary, control, inverse = _EMPTY, _EMPTY, 0.0
    for side, _ in pairs:
        canary = canary.plus(side)
    for side, beside in pairs:
        if beside.total > 0:
            share = side.total / canary.total
            control = control.plus(beside.times(share / beside.total))
            inverse += share * share / beside.total
    return canary, control.times(1.0 / inverse if inverse > 0.0 else 0.0)


def _evidences(gate: MetricGate, basis: Basis, sides: list[tuple[_Side, _Side]]) -> list[Evidences]:
    match gate.metric, basis:
        case Metric.OUTPUT_DRIFT | Metric.CONFIDENCE_DRIFT | Metric.INPUT_DRIFT, Basis.LIMIT:
            return [NOTHING] * len(sides)
        case Metric.OUTPUT_DRIFT, _:
            return [_drift(*pair, gate.margin) for pair in sides]
        case Metric.CONFIDENCE_DRIFT | Metric.INPUT_DRIFT, _:
            return [_drift(*_below_edges(*pair), gate.margin) for pair in sides]
        case Metric.LATENCY | Metric.MEMORY, Basis.LIMIT:
            return [_late(side, gate) for side, _ in sides]
        case Metric.LATENCY | Metric.MEMORY, _:
            return [_slower(*pair, gate) for pair in sides]
        case _, Basis.LIMIT:
            return [against_limit(Counts(side.bad, side.total), gate.limit) for side, _ in sides]
        case _:
            return against_control(
                [Counts(side.bad, side.total) for side, _ in sides],
                [Counts(side.bad, side.total) for _, side in sides],
                gate.margin,
            )


def _drift(canary: _Side, control: _Side, margin: float) -> Evidences:
    both: tuple[list[Counts], list[Counts]] = ([], [])
    for cell in sorted(canary.cells.keys() | control.cells.keys()):
        for side, counts in zip((canary, control), both, strict=True):
            inside = side.cells.get(cell, 0.0)
            counts += [Counts(inside, side.total), Counts(side.total - inside, side.total)]
    if not both[0]:
        return NOTHING
    found = against_control(*both, margin)
    return Evidences(mean([one.harm for one in found]), min(one.safety for one in found))


def _below_edges(canary: _Side, control: _Side) -> tuple[_Side, _Side]:
    """Return both sides with cells that say how many are below each edge of a bin."""
    edges = range(max((*canary.cells, *control.cells), default=0))

    def below(side: _Side) -> _Side:
        return side._replace(cells=dict(enumerate(accumulate(side.cells.get(cell, 0.0) for cell in edges))))

    return below(canary), below(control)


def _slower(canary: _Side, control: _Side, gate: MetricGate) -> Evidences:
    assert gate.quantile is not None and gate.ratio is not None
    return of_quantiles(canary.cells, control.cells, gate.quantile, gate.ratio)


def _late(canary: _Side, gate: MetricGate) -> Evidences:
    assert gate.quantile is not None
    last = bucket_of_budget(gate)
    late = sum(n for index, n in canary.cells.items() if index > last)
    return against_limit(Counts(late, canary.total), 1.0 - gate.quantile)
