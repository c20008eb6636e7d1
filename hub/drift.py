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

from fleet.drift.alarms import LEAST_THRESHOLD, AlarmChange, FeatureDrift, advance_alarm, judge_drift
from fleet.drift.profile import ReferenceProfile, merge_profiles
from fleet.protocol.errors import MusterError
from fleet.protocol.records import TelemetryWindow
from fleet.protocol.windows import contradiction
from hub.store.protocols import DeviceStore, DriftStore, RecordStore
from hub.store.rows import DriftRow, StoredRecord

log = logging.getLogger(__name__)

RECORDS_PER_STEP = 500
_Key = tuple[str, str, int]


class DriftWatchStore(DriftStore, RecordStore, DeviceStore, Protocol):
    """What drift needs of the store."""


class _Watched:
    """Evidence of everything that is watched: of every device, the versions that it is to run."""

    def __init__(self, store: DriftWatchStore, known: dict[_Key, DriftRow]) -> None:
        self._store = store
        self._desired: dict[str, dict[str, int]] = {}
        self._strong: dict[_Key, list[float]] = {}
        for row in known.values():
            self.keep(row)

    def keep(self, row: DriftRow) -> None:
        """Take in what is known of a device and version now; weak evidence cannot matter to others."""
        strong = [value for value in row.alarm.evidence.values() if value >= LEAST_THRESHOLD]
        if strong and self._versions(row.model).get(row.device_id) == row.version:
            self._strong[row.device_id, row.model, row.version] = strong
        else:
            self._strong.pop((row.device_id, row.model, row.version), None)

    def beside(self, row: DriftRow) -> list[float]:
        """Return the evidence of all others."""
        own = (row.device_id, row.model, row.version)
        return [value for key, values in self._strong.items() if key != own for value in values]

    def devices(self, model: str) -> int:
        """Return how many devices are to run the model."""
        return len(self._versions(model))

    def _versions(self, model: str) -> dict[str, int]:
        if model not in self._desired:
            self._desired[model] = self._store.desired_versions(model)
        return self._desired[model]


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
            watched = _Watched(self._store, known)
            changed = self._counted(records, known)
            for key, row in changed.items():
                if row.predictions >= self._block_predictions:
                    changed[key] = self._looked_at(row, watched)
                    watched.keep(changed[key])
            self._store.save_drift(records[-1].position, list(changed.values()))

    def _counted(self, records: Iterable[StoredRecord], known: dict[_Key, DriftRow]) -> dict[_Key, DriftRow]:
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
        return changed

    def _looked_at(self, row: DriftRow, watched: _Watched) -> DriftRow:
        try:
            _, reference = self._reference(row.model, row.version)
            judged = judge_drift(
                reference,
                row.block,
                row.alarm,
                others=watched.beside(row),
                watched=len(reference.features) * watched.devices(row.model),
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
