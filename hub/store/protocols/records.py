"""What devices reported: records, and what some kinds of them add up to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from hub.store.intake_rows import Intake
from hub.store.rows import (
    DeadLetter,
    IncomingRecord,
    MeasurementRow,
    RawRecord,
    ShadowTotals,
    StoredRecord,
)


class DeadLetterStore(Protocol):
    """Messages that could not be taken in: the newest, of which one device can have only a share."""

    def add_dead_letters(self, letters: Iterable[DeadLetter], *, kept: int = 10_000) -> None:
        """Keep messages that could not be taken in, in place of the oldest.

        Args:
            letters: The messages.
            kept: How many there are at most; a tenth of them of one device.
        """
        ...

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """Return the newest dead letters, newest first."""
        ...

    def count_dead_letters(self) -> int:
        """Return how many dead letters there ever were."""
        ...


class RecordStore(Protocol):
    """What devices reported, each record exactly once."""

    def add_records(self, records: Sequence[IncomingRecord]) -> int:
        """Store the records that were not received before; return how many that were."""
        ...

    def take_in(self, intake: Intake) -> int:
        """Store a batch of messages in one transaction.

        A record that was received before is left out, also when it was deleted since. What devices said of
        themselves is put in place of what they said before; of a device that there is not, it is left out.
        If a device has accepted a higher sequence number than the store has given out (the store was
        restored from a copy), the device's number is raised above it, so that orders are obeyed again.

        Returns:
            How many records were new.
        """
        ...

    def delete_records(
        self, *, upto_position: int, older_than_s: float, kinds: Sequence[str], limit: int = 1000
    ) -> int:
        """Delete the oldest records; they stay known as received.

        Args:
            upto_position: No record after this is deleted.
            older_than_s: None that was received at or after this time.
            kinds: Which: ``deployment``, ``incident``, ``window``, ``noised``, ``diagnostics``,
                ``measurement``, ``shadow``.
            limit: Most rows in one transaction; windows that came together are one row.

        Returns:
            How many rows were deleted: call again while it is the limit. The newest row is never deleted.
        """
        ...

    def raw_records_after(
        self, position: int, *, model: str | None = None, limit: int = 1000
    ) -> list[RawRecord]:
        """Return records as they came, in the order they were stored; incidents have no model.

        Windows that came together share a position and are given together, so there can be more than
        ``limit``. There are fewer where some are large: none means that there are no more.
        """
        ...

    def timeline(self, device_id: str, *, before: int | None = None, limit: int = 100) -> list[StoredRecord]:
        """Return one device's reports and incidents (no windows), newest first."""
        ...

    def last_position(self) -> int:
        """Return the position of the newest record; 0 for none."""
        ...


class MeasurementStore(Protocol):
    """What devices measured of variants: the newest of each device and bundle."""

    def measurements(
        self, *, manifest_sha256: str | None = None, device_id: str | None = None
    ) -> list[MeasurementRow]:
        """Return what was measured of a bundle, by a device, or both, by device and model."""
        ...


class ShadowStore(Protocol):
    """What devices reported of candidates in the shadow; `RecordStore.take_in` adds it up here."""

    def shadows(self, model: str, version: int) -> list[ShadowTotals]:
        """Return what was reported of a version in the shadow, by device and deployment."""
        ...
