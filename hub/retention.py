"""Forgetting: what is kept for how long, and that the space is given back.

========================  ===============  ==================================================
what                      kept for         and never before
========================  ===============  ==================================================
windows as they came      `windows_s`      everything that reads records has read them
other records             `events_s`       likewise
sums over minutes         `minutes_s`      (hours and days hold the same windows)
sums over hours           `hours_s`        (days hold the same windows)
sums over days            `days_s`         (also those of noised windows)
values of cohorts         `days_s`         a device has it, or sums of it are kept
totals, blocks, alarms    `days_s`         the device is to run another version, or none
========================  ===============  ==================================================

Each step is a few short transactions, between which messages are stored. A record that was deleted stays
known as received: a device that sends it again is told that it was stored, and it is not counted twice.
"""

from __future__ import annotations

import logging
from typing import NamedTuple, Protocol

from hub.store.protocols import NoisedStore, RecordStore, RollupStore, TelemetryStore
from hub.store.telemetry_rows import DAY_S, HOUR_S, MINUTE_S

log = logging.getLogger(__name__)

ROWS_PER_STEP = 500
WINDOWS = ("window", "noised")
EVENTS = ("deployment", "incident", "diagnostics", "measurement", "shadow")


class Limits(NamedTuple):
    """How long what is kept, in seconds; see the head of this file."""

    windows_s: float
    minutes_s: float
    hours_s: float
    days_s: float
    events_s: float


class RetentionStore(RecordStore, RollupStore, TelemetryStore, NoisedStore, Protocol):
    """What retention needs of the store."""


class Retention:
    """Deletes what is old. Its methods block on the store: call them in a thread.

    Args:
        store: Has it.
        limits: How long it is kept.
    """

    def __init__(self, store: RetentionStore, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    def run(self, now_s: float) -> int:
        """Delete all that is too old; return how many rows that were."""
        deleted = 0
        while step := self.step(now_s):
            deleted += step
        if deleted:
            self._store.give_back_space()
            log.info("Retention deleted %d rows.", deleted)
        return deleted

    def step(self, now_s: float) -> int:
        """Delete a bounded number of rows of each kind; return how many that were."""
        limits, store = self._limits, self._store
        read = store.read_by_all()
        deleted = 0
        for kinds, kept_s in ((WINDOWS, limits.windows_s), (EVENTS, limits.events_s)):
            deleted += store.delete_records(
                upto_position=read, older_than_s=now_s - kept_s, kinds=kinds, limit=ROWS_PER_STEP
            )
        for duration_s, kept_s in (
            (MINUTE_S, limits.minutes_s),
            (HOUR_S, limits.hours_s),
            (DAY_S, limits.days_s),
        ):
            deleted += store.delete_rollups(
                duration_s=duration_s, before_s=now_s - kept_s, limit=ROWS_PER_STEP
            )
        deleted += store.forget_cohort_values(before_s=now_s - limits.days_s, limit=ROWS_PER_STEP)
        deleted += store.forget_noised(before_s=now_s - limits.days_s, limit=ROWS_PER_STEP)
        return deleted + store.forget_versions(before_s=now_s - limits.days_s, limit=ROWS_PER_STEP)
