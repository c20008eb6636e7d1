"""What the telemetry pass keeps: sums of all times, blocks between looks, and how far it has counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from hub.store.rows import VersionTotals
from hub.store.telemetry_rows import CohortValue, TelemetryStep, VersionKey


class TelemetryStore(Protocol):
    """What the telemetry pass keeps, see `hub.telemetry`; sums over time are in `RollupStore`."""

    def telemetry_position(self) -> int:
        """Return up to which position records are counted."""
        ...

    def save_telemetry(self, step: TelemetryStep) -> None:
        """Store what a step changes.

        Raises:
            Conflict: The records up to another position than ``step.previous`` are counted.
        """
        ...

    def totals(self, *, device_id: str | None = None, model: str | None = None) -> list[VersionTotals]:
        """Return what devices reported about versions in all, without profiles."""
        ...

    def sealed_totals(self, which: Iterable[VersionKey]) -> dict[VersionKey, bytes]:
        """Return those of the totals that there are, as they are stored."""
        ...

    def drift_blocks(self, which: Iterable[VersionKey]) -> dict[VersionKey, bytes]:
        """Return those of the blocks that there are, as they are stored."""
        ...

    def cohorts(self, device_ids: Sequence[str], group_by: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """Return the cohorts of those of the devices that there are, see `fleet.cohorts`."""
        ...

    def cohort_values(self) -> list[CohortValue]:
        """Return the values that are cohorts of their own."""
        ...

    def forget_cohort_values(self, *, before_s: float, limit: int) -> int:
        """Forget values that no device had since a day before a time; return how many."""
        ...

    def read_by_all(self) -> int:
        """Return up to which position records are read by all that read them: passes and open rollouts."""
        ...

    def give_back_space(self) -> None:
        """Give the space of what was deleted back to the file system, as far as that takes a moment."""
        ...

    def forget_versions(self, *, before_s: float, limit: int) -> int:
        """Forget what devices are not to run any more: totals, blocks and alarms.

        Args:
            before_s: Only of what no window was received at or after this time.
            limit: Of how many devices and versions at most.

        Returns:
            Of how many.
        """
        ...
