"""The shell of drift alarms: adds up the windows of each device and version, and looks when there are enough.

A look compares the counts since the last look with the reference profile in the version's manifest
(`fleet.drift.alarms`). Counts, looks and the position in the records change in one transaction, so that no
window is counted twice or left out, whenever the hub is killed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from fleet.drift.alarms import AlarmChange, FeatureDrift, advance_alarm, judge_drift
from fleet.drift.profile import ReferenceProfile, merge_profiles
from fleet.protocol.errors import MusterError
from fleet.protocol.messages import TelemetryWindow
from fleet.protocol.windows import contradiction
from hub.store.protocols import DeviceStore, DriftStore, RecordStore
from hub.store.rows import DriftRow, StoredRecord

log = logging.getLogger(__name__)

RECORDS_PER_STEP = 500
_Key = tuple[str, str, int]


class DriftWatchStore(DriftStore, RecordStore, DeviceStore, Protocol):
    """What drift needs of the store."""


class DriftWatch:
    """Keeps drift alarms up to date. Its methods block on the store: call them in a thread.

    Args:
        store: Keeps records and drift bookkeeping.
        reference: Returns the bundle digest and reference profile of a version.
        block_predictions: Predictions between two looks.
    """

    def __init__(
        self,
        store: DriftWatchStore,
        *,
        reference: Callable[[str, int], tuple[str, ReferenceProfile]],
        block_predictions: int,
    ) -> None:
        self._store = store
        self._reference = reference
        self._block_predictions = block_predictions

    def advance(self) -> None:
        """Take in the records that were not seen yet."""
        while True:
            position = self._store.drift_position()
            records = self._store.records_after(position, limit=RECORDS_PER_STEP)
            if not records:
                return
            known = {(row.device_id, row.model, row.version): row for row in self._store.drift()}
            changed = self._counted(records, known)
            self._store.save_drift(records[-1].position, [self._looked_at(row) for row in changed])

    def _counted(self, records: Iterable[StoredRecord], known: dict[_Key, DriftRow]) -> list[DriftRow]:
        changed: dict[_Key, DriftRow] = {}
        for record in records:
            window = record.body
            if not isinstance(window, TelemetryWindow) or contradiction(window) is not None:
                continue
            key = (record.device_id, window.model, window.version)
            row = changed.get(key) or known.get(key) or DriftRow(*key)
            changed[key] = msgspec.structs.replace(
                row,
                block=merge_profiles(row.block, window.profile),
                predictions=row.predictions + window.predictions,
            )
        return list(changed.values())

    def _looked_at(self, row: DriftRow) -> DriftRow:
        if row.predictions < self._block_predictions:
            return row
        try:
            _, reference = self._reference(row.model, row.version)
            judged = judge_drift(
                reference,
                row.block,
                look=row.alarm.looks + 1,
                devices=len(self._store.desired_versions(row.model)),
            )
        except MusterError as error:
            log.error("Drift of %s was not judged: %s", row.device_id, error)
            return msgspec.structs.replace(row, block={}, predictions=0)
        alarm, change = advance_alarm(row.alarm, judged)
        if change is not AlarmChange.NONE:
            log.warning("Drift alarm %s: %s", change.value, _sentence(row, judged))
        return msgspec.structs.replace(row, block={}, predictions=0, alarm=alarm, last_look=tuple(judged))


def _sentence(row: DriftRow, judged: list[FeatureDrift]) -> str:
    evidence = "; ".join(drift.sentence for drift in judged if drift.drifted)
    return f"{row.device_id}, {row.model} version {row.version}: {evidence or 'calm again'}"
