"""Drift alarms, as the last look left them; `TelemetryStore.save_telemetry` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from hub.store.rows import DriftRow
from hub.store.telemetry_rows import StrongEvidence, VersionKey


class DriftStore(Protocol):
    """Drift alarms, as the last look left them."""

    def drift(self, *, model: str | None = None, device_id: str | None = None) -> list[DriftRow]:
        """Return the alarms of devices and versions that were looked at."""
        ...

    def drift_page(
        self,
        *,
        model: str | None = None,
        devices: Sequence[str] | None = None,
        current: bool = False,
        alarms: bool = False,
        after: str = "",
        limit: int = 100,
    ) -> list[DriftRow]:
        """Return the alarms of some devices, by id, model and version.

        Args:
            model: Only of this model.
            devices: Only of these; None for all.
            current: Only of versions that devices run, as the last refresh of states saw it.
            alarms: With ``current``, only those that are raised, as that refresh saw it.
            after: Only of devices whose id comes after it.
            limit: Most devices; of each, all is returned.
        """
        ...

    def drift_of(self, which: Iterable[VersionKey]) -> dict[VersionKey, DriftRow]:
        """Return those of the alarms that there are."""
        ...

    def strong_evidence(self) -> list[StrongEvidence]:
        """Return all evidence that may be a discovery, of versions that the devices are to run."""
        ...

    def to_run(self, which: Iterable[VersionKey]) -> set[VersionKey]:
        """Return those of the versions that their devices are to run."""
        ...

    def devices_to_run(self, model: str) -> int:
        """Return how many devices are to run a model."""
        ...
