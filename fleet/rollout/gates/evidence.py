"""Evidence: how many of how many were bad, or which cell how many fell into, for canaries and controls.

Evidence is a value, and merging is addition: over windows, devices, batches and stages, in any order. What
one window adds says `windows`: a few numbers, to its arm and to its stratum in it: O(1), and nothing is kept
of the window itself. Beside the counts there are sums of squares over windows, from which `dispersion` finds
out how much alike the answers of one device are. The same is kept of each group of devices (`groups`), so
that any of them can be left out.

A window that contradicts itself counts for nothing; how many did is kept, because a canary that mostly
talks nonsense is a reason to stop and look (verdict ERROR).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

MOST_STRATA = 64
"""Windows of further strata count for the whole alone."""
_WHOLE_UP_TO = 2**63
"""A whole number takes half the room of a float where it is stored, but has a largest."""


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """How many of ``total`` samples were ``bad``, or how many fell into which cell.

    Attributes:
        bad: How many; of a histogram the sum of the numbers of its cells.
        total: Of how many.
        bad_squared: Sum over windows of the square of ``bad``; whole, of what was observed, while none of the
            three is beyond `_WHOLE_UP_TO`.
        cross: Likewise of ``bad`` times ``total``.
        total_squared: Likewise of the square of ``total``.
        cells: Of a metric that compares histograms: how many samples fell into each cell that any did.
    """

    bad: int = 0
    total: int = 0
    bad_squared: int | float = 0
    cross: int | float = 0
    total_squared: int | float = 0
    cells: dict[int, int] = {}

    @classmethod
    def of(cls, bad: int, total: int) -> Tally:
        """Return the tally of one window."""
        return cls(bad, total, bad * bad, bad * total, total * total)

    @classmethod
    def of_cells(cls, cells: dict[int, int]) -> Tally:
        """Return the tally of one window's histogram, by number of its cell."""
        one = cls.of(sum(cell * number for cell, number in cells.items()), sum(cells.values()))
        return msgspec.structs.replace(one, cells=cells)

    def plus(self, other: Tally) -> Tally:
        """Return both together."""
        squares = (
            self.bad_squared + other.bad_squared,
            self.cross + other.cross,
            self.total_squared + other.total_squared,
        )
        if max(squares) >= _WHOLE_UP_TO:
            squares = (float(squares[0]), float(squares[1]), float(squares[2]))
        cells = _added(self.cells, other.cells) if other.cells else self.cells
        return Tally(self.bad + other.bad, self.total + other.total, *squares, cells)

    @property
    def is_possible(self) -> bool:
        """Whether any windows can have added up to this."""
        squares = (self.bad_squared, self.cross, self.total_squared)
        if self.total < 0 or not all(math.isfinite(square) and square >= 0.0 for square in squares):
            return False
        if self.cells:
            return min(self.cells.values()) >= 0 and sum(self.cells.values()) == self.total
        return 0 <= self.bad <= self.total


class Arm(msgspec.Struct, frozen=True, array_like=True):
    """What one side of the comparison reported during a stage.

    Attributes:
        devices: How many devices contributed.
        windows: How many windows were counted.
        unusable: How many contradicted themselves and were not.
        tallies: One for each of the gate's metrics, in the plan's order.
        strata: The same of each class of devices, by its name; empty if there are no classes, and in a class.
        noised: How many have noise on their counts and are no evidence, see `fleet.privacy`.
    """

    devices: int
    windows: int
    unusable: int
    tallies: tuple[Tally, ...]
    strata: dict[str, Arm] = {}
    noised: int = 0

    @classmethod
    def empty(cls, metrics: int) -> Arm:
        """Return an arm that nothing was heard of, for so many metrics."""
        return cls(0, 0, 0, (Tally(),) * metrics)

    def plus(self, other: Arm) -> Arm:
        """Return both together."""
        strata = self.strata
        if other.strata:
            strata = dict(strata)
            for name, arm in other.strata.items():
                if name in strata:
                    strata[name] = strata[name].plus(arm)
                elif len(strata) < MOST_STRATA:
                    strata[name] = arm
        return Arm(
            self.devices + other.devices,
            self.windows + other.windows,
            self.unusable + other.unusable,
            tuple([a.plus(b) for a, b in zip(self.tallies, other.tallies, strict=True)]),
            strata,
            self.noised + other.noised,
        )


class Evidence(msgspec.Struct, frozen=True, array_like=True):
    """Both sides of the comparison during one stage.

    Attributes:
        canary: Devices that were sent the version and run it.
        control: Devices of the rollout that were not yet sent it and run another.
        spans: The same by span of time, see `spans`; empty if all of it is of one. A device is counted in the
            first that it was heard of in.
        groups: The same by group of devices, see `groups`.
    """

    canary: Arm
    control: Arm
    spans: dict[int, Evidence] = {}
    groups: dict[int, Evidence] = {}

    @classmethod
    def empty(cls, metrics: int) -> Evidence:
        """Return no evidence, for so many metrics."""
        return cls(Arm.empty(metrics), Arm.empty(metrics))

    def plus(self, other: Evidence) -> Evidence:
        """Return both together."""
        return Evidence(
            self.canary.plus(other.canary),
            self.control.plus(other.control),
            _together(self.spans, other.spans),
            _together(self.groups, other.groups),
        )

    def during(self, span: int) -> Evidence:
        """Return the same as evidence of a span."""
        groups = {group: evidence.during(span) for group, evidence in self.groups.items()}
        return Evidence(self.canary, self.control, {span: Evidence(self.canary, self.control)}, groups)

    @property
    def sums(self) -> Evidence:
        """The same without spans, as it is kept of a stage that has ended."""
        groups = {group: evidence.sums for group, evidence in self.groups.items()}
        return Evidence(self.canary, self.control, groups=groups)

    def of_span(self, number: int) -> Evidence:
        """Return one of the spans, with what each group of devices said in it."""
        span = self.spans[number]
        groups = {group: said.spans[number] for group, said in self.groups.items() if number in said.spans}
        return Evidence(span.canary, span.control, groups=groups)

    def with_spans(self, spans: Mapping[int, Evidence]) -> Evidence:
        """Return sums together with their spans, each as `of_span` returns it."""
        groups = {
            group: Evidence(
                said.canary,
                said.control,
                {number: span.groups[group] for number, span in spans.items() if group in span.groups},
            )
            for group, said in self.groups.items()
        }
        bare = {number: Evidence(span.canary, span.control) for number, span in spans.items()}
        return Evidence(self.canary, self.control, bare, groups)

    def of_arms(self, canary: bool, control: bool) -> Evidence:
        """Return the same with nothing of an arm that is not asked for."""
        if canary and control:
            return self
        nothing = Arm.empty(len(self.canary.tallies))
        spans = {number: span.of_arms(canary, control) for number, span in self.spans.items()}
        return Evidence(self.canary if canary else nothing, self.control if control else nothing, spans)


def gathered(by_stratum: dict[str, Arm], metrics: int) -> Arm:
    """Return the arm that consists of these classes of devices.

    Args:
        by_stratum: By the name of the class; with an empty name, devices that are of none.
        metrics: How many the gate has.
    """
    whole = Arm.empty(metrics)
    for arm in by_stratum.values():
        whole = whole.plus(arm)
    named = [name for name in by_stratum if name]
    return msgspec.structs.replace(whole, strata={name: by_stratum[name] for name in named[:MOST_STRATA]})


def _together(left: dict[int, Evidence], right: dict[int, Evidence]) -> dict[int, Evidence]:
    both = dict(left)
    for number, evidence in right.items():
        both[number] = both[number].plus(evidence) if number in both else evidence
    return both


def _added(left: dict[int, int], right: dict[int, int]) -> dict[int, int]:
    return {cell: left.get(cell, 0) + right.get(cell, 0) for cell in left.keys() | right.keys()}
