"""An arm as a batch of windows adds up to it: numbers that change in place, so that a window makes no values.

At the end they are the `Arm` that adding the windows' values one after the other would have been.
"""

from __future__ import annotations

from fleet.protocol.records import ShadowReport, TelemetryWindow
from fleet.rollout.gates.evidence import Arm, Tally
from fleet.rollout.gates.windows import MOST_ANSWERS, Said, bounded, reader, unusable
from fleet.rollout.plans.plan import Metric, MetricGate


class ArmSum:
    """One class of devices on one side of the comparison, during a batch.

    Args:
        metrics: Of the gate.
    """

    def __init__(self, metrics: tuple[MetricGate, ...]) -> None:
        self._devices = self._windows = self._unusable = self._noised = 0
        self._sums = [(gate.metric, reader(gate), TallySum()) for gate in metrics]

    def add(self, window: TelemetryWindow, *, is_new: bool) -> str | None:
        """Add a window; return why it counts for nothing, None if it counts.

        Args:
            window: From a device of this class.
            is_new: Whether the device has not contributed before.
        """
        if (why := unusable(window)) is not None:
            self._unusable += 1
            return why
        self._devices += is_new
        self._windows += 1
        for _, read, so_far in self._sums:
            so_far.add(*_counted(*read(window)))
        return None

    def add_unreadable(self) -> None:
        """Add a window whose counts cannot be read."""
        self._unusable += 1

    def add_noised(self) -> None:
        """Add a window with noise on its counts."""
        self._noised += 1

    def add_shadow(self, report: ShadowReport) -> None:
        """Add a report of a shadow that does not contradict itself; its device is no canary yet."""
        for metric, _, so_far in self._sums:
            if metric is Metric.SHADOW_DISAGREEMENT:
                so_far.add(*_counted(report.disagreed, report.compared, {}))

    def arm(self) -> Arm:
        """Return what all of it comes to."""
        tallies = tuple(so_far.tally() for _, _, so_far in self._sums)
        return Arm(self._devices, self._windows, self._unusable, tallies, noised=self._noised)


def _counted(bad: int, total: int, cells: dict[int, int]) -> Said:
    """Return what a window says as it counts."""
    return bounded(bad, total, cells) if total > MOST_ANSWERS else (bad, total, cells)


class TallySum:
    """A `Tally` that changes in place.

    Attributes:
        added: How many windows were added.
    """

    __slots__ = ("_bad", "_bad_squared", "_cells", "_cross", "_total", "_total_squared", "added")

    def __init__(self) -> None:
        self.added = 0
        self._bad = self._total = self._bad_squared = self._cross = self._total_squared = 0
        self._cells: dict[int, int] = {}

    def add(self, bad: int, total: int, cells: dict[int, int]) -> None:
        """Add what a window says."""
        self.added += 1
        self._bad += bad
        self._total += total
        self._bad_squared += bad * bad
        self._cross += bad * total
        self._total_squared += total * total
        so_far = self._cells
        for cell, number in cells.items():
            so_far[cell] = so_far.get(cell, 0) + number

    def tally(self) -> Tally:
        """Return what all of it comes to."""
        squares = (self._bad_squared, self._cross, self._total_squared)
        return Tally(self._bad, self._total, *squares, self._cells)
