"""What devices reported: records, and what some kinds of them add up to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hub.store.rows import (
    DeadLetter,
    IncomingRecord,
    MeasurementRow,
    ShadowTotals,
    StoredRecord,
    VersionTotals,
)


class RecordStore(Protocol):
    """What devices reported, each record exactly once."""

    def add_records(self, records: Sequence[IncomingRecord]) -> int:
        """Store the records that are not stored yet; return how many were new."""
        ...

    def add_dead_letter(self, letter: DeadLetter) -> None:
        """Keep a message that could not be taken in."""
        ...

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """Return the newest dead letters, newest first."""
        ...

    def count_dead_letters(self) -> int:
        """Return how many dead letters there are."""
        ...

    def records_after(
        self, position: int, *, model: str | None = None, limit: int = 1000
    ) -> list[StoredRecord]:
        """Return records in the order they were stored; incidents have no model."""
        ...

    def timeline(self, device_id: str, *, before: int | None = None, limit: int = 100) -> list[StoredRecord]:
        """Return one device's reports and incidents (no windows), newest first."""
        ...

    def last_reports(self, *, device_id: str | None = None) -> list[StoredRecord]:
        """Return the newest deployment report of each device and model."""
        ...

    def last_position(self) -> int:
        """Return the position of the newest record; 0 for none."""
        ...

    def totals(self, *, device_id: str | None = None, model: str | None = None) -> list[VersionTotals]:
        """Return what devices reported about versions, added up."""
        ...


class MeasurementStore(Protocol):
    """What devices measured of variants: the newest of each device and bundle."""

    def measurements(
        self, *, manifest_sha256: str | None = None, device_id: str | None = None
    ) -> list[MeasurementRow]:
        """Return what was measured of a bundle, by a device, or both, by device and model."""
        ...


class ShadowStore(Protocol):
    """What devices reported of candidates in the shadow; `add_records` adds it up here."""

    def shadows(self, model: str, version: int) -> list[ShadowTotals]:
        """Return what was reported of a version in the shadow, by device and deployment."""
        ...
