"""The telemetry pass: reads the stored records once, from a position of its own, and adds windows up.

::

    records ──→ WindowReader ──→ sums by device, cohort and time ──┐
                     │                blocks since the last look ──┤──→ one transaction, with the position
                     └── dead letters      └──→ Looks ──→ alarms ──┘

A step takes as many records as fit into bounded memory, and all that it changes is stored with the position
that it includes. So no window is counted twice or left out, whenever the hub is killed. Steps are short: they
run in a thread of their own, and whatever else the hub does goes on between and beside them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from hub.store.protocols import DriftStore, NoisedStore, RecordStore, RollupStore, TelemetryStore
from hub.store.rows import DriftRow, RawRecord
from hub.store.telemetry_rows import SealedRollup, TelemetryStep, VersionKey
from hub.telemetry.cohorts import Cohorts
from hub.telemetry.looks import Block, Looks
from hub.telemetry.noised import with_stored as with_noised_stored
from hub.telemetry.reading import Counted, Reading, Reference, WindowReader
from hub.telemetry.since_start import Answers
from hub.telemetry.sums import Sums, by_device, device_hours, rollups, with_bodies, with_stored
from hub.tracing import span

log = logging.getLogger(__name__)

RECORDS_PER_STEP = 2048


class CountingStore(TelemetryStore, RollupStore, DriftStore, NoisedStore, RecordStore, Protocol):
    """What the pass needs of the store."""


class Progress(NamedTuple):
    """What the pass has done since the hub started.

    Attributes:
        windows: Windows that were counted.
        refused: Windows that could not be, and are dead letters.
        misdated: Windows that count as of when they were received.
        noised: Noised windows that were added up.
    """

    windows: int = 0
    refused: int = 0
    misdated: int = 0
    noised: int = 0


class _Change(NamedTuple):
    """What the windows of one bundle change."""

    totals: dict[VersionKey, bytes]
    rollups: list[SealedRollup]
    blocks: dict[VersionKey, bytes | None]
    drift: list[DriftRow]


class Telemetry:
    """Counts what devices sent. Its methods block on the store: call them in a thread.

    Args:
        store: Keeps records and sums.
        reference: See `hub.telemetry.reading.Reference`.
        block_predictions: Predictions of a device and version between two looks for drift.
        group_by: The hub's setting, see `fleet.cohorts`.
        dead_letters_kept: How many dead letters are kept.
    """

    def __init__(
        self,
        store: CountingStore,
        *,
        reference: Reference,
        block_predictions: int,
        group_by: Sequence[str] = (),
        dead_letters_kept: int = 10_000,
    ) -> None:
        self._store = store
        self._reader = WindowReader(reference)
        self._looks = Looks(store, reference)
        self._block_predictions = block_predictions
        self.cohorts = Cohorts(store, group_by)
        self._dead_letters_kept = dead_letters_kept
        self.progress = Progress()
        self.answers: dict[tuple[str, int], Answers] = {}
        """By model and version."""

    def backlog(self) -> int:
        """Return how many positions of the records are not counted yet."""
        return max(0, self._store.last_position() - self._store.telemetry_position())

    def advance(self) -> None:
        """Count everything that is there."""
        while self.step():
            pass

    def step(self) -> bool:
        """Count the next records; return whether there were any."""
        previous = self._store.telemetry_position()
        records = self._store.raw_records_after(previous, limit=RECORDS_PER_STEP)
        if not records:
            return False
        with span("telemetry step", records=len(records)):
            self._take_in(previous, records)
        return True

    def _take_in(self, previous: int, records: Sequence[RawRecord]) -> None:
        reading = self._reader.read(records)
        now_s = reading.received_at_s
        changes = [self._change(counted, now_s) for counted in reading.counted if counted.table.number]
        self._store.save_telemetry(
            TelemetryStep(
                previous=previous,
                position=reading.position,
                received_at_s=reading.received_at_s,
                totals={key: body for change in changes for key, body in change.totals.items()},
                rollups=[rollup for change in changes for rollup in change.rollups],
                blocks={key: body for change in changes for key, body in change.blocks.items()},
                drift=[row for change in changes for row in change.drift],
                cohort_values=self.cohorts.changed(),
                noised=with_noised_stored(reading.noised, self._store),
                letters=reading.letters,
                letters_kept=self._dead_letters_kept,
            )
        )
        self.cohorts.stored()
        self._note(reading)

    def _change(self, counted: Counted, now_s: float) -> _Change:
        cohorts = self.cohorts.of(sorted(set(counted.devices)), now_s)
        sealed: list[SealedRollup] = []
        for sums in rollups(counted, cohorts):
            sealed += with_stored(sums, self._store.sealed_rollups(sums.keys))
        of_devices = by_device(device_hours(counted))
        bare = of_devices._replace(table=of_devices.table.without_counts())
        totals = with_bodies(bare, self._store.sealed_totals(bare.keys))
        blocks, drift = self._blocks(of_devices)
        return _Change(dict(zip(totals.keys, totals.bodies(), strict=True)), sealed, blocks, drift)

    def _blocks(self, of_devices: Sums[VersionKey]) -> tuple[dict[VersionKey, bytes | None], list[DriftRow]]:
        """Return the blocks after the windows of a step, and the alarms of those that were looked at."""
        counts_only = of_devices.table._replace(latency=np.zeros_like(of_devices.table.latency), labels={})
        sums = with_bodies(of_devices._replace(table=counts_only), self._store.drift_blocks(of_devices.keys))
        is_due = sums.table.predictions >= self._block_predictions
        ends_s = sums.table.ended_at_s.tolist()
        due = [
            Block(sums.keys[row], sums.table.counts.profile(row), ends_s[row])
            for row in np.flatnonzero(is_due).tolist()
        ]
        waiting = sums.only(np.flatnonzero(~is_due).tolist())
        blocks: dict[VersionKey, bytes | None] = dict(zip(waiting.keys, waiting.bodies(), strict=True))
        return blocks | {block.which: None for block in due}, self._looks.look(due)

    def _note(self, reading: Reading) -> None:
        done = self.progress
        for counted in reading.counted:
            which = (counted.table.bundle.model, counted.table.bundle.version)
            self.answers[which] = self.answers.get(which, Answers()).with_windows(counted.table)
        if reading.misdated:
            log.warning(
                "%d windows count as of when they were received: their clock is off.", reading.misdated
            )
        self.progress = Progress(
            done.windows + sum(counted.table.number for counted in reading.counted),
            done.refused + len(reading.letters),
            done.misdated + reading.misdated,
            done.noised + sum(one.windows for one in reading.noised.values()),
        )
