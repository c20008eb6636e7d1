"""The shell of the tests for concept drift: counts the labels of versions, and looks when there are enough.

A version is tested on each device that labels come from, and on all of them together, where a few labels
from each of many devices say enough (`fleet.quality.concept`). Labels, looks and the position in the records
change in one transaction, so that no label is counted twice or left out, whenever the hub is killed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from fleet.drift.alarms import LEAST_THRESHOLD, AlarmChange
from fleet.drift.profile import ReferenceProfile
from fleet.protocol.errors import InvalidMessage, MusterError
from fleet.protocol.heads import WindowHead, read_head, read_record
from fleet.protocol.records import TelemetryWindow
from fleet.protocol.windows import contradiction
from fleet.quality.calibration import Calibration, calibration_of
from fleet.quality.concept import LABELS_PER_LOOK, LABELS_TOGETHER, ConceptState, look, normal_angle
from hub.store.concept_rows import EVERY_DEVICE, ConceptKey, ConceptRow
from hub.store.protocols import DriftStore, QualityStore, RecordStore
from hub.store.rows import RawRecord

log = logging.getLogger(__name__)

RECORDS_PER_STEP = 5000
STEPS_AT_ONCE = 20
"""Other work waits meanwhile; what is left is taken in at the next call."""
_Labels = dict[ConceptKey, tuple[int, int]]


class QualityWatchStore(QualityStore, RecordStore, DriftStore, Protocol):
    """What the tests need of the store."""


class QualityWatch:
    """Keeps the tests for concept drift up to date. Its methods block on the store: call them in a thread.

    Args:
        store: Keeps records and tests.
        reference: Returns the bundle digest and reference profile of a version.
    """

    def __init__(
        self, store: QualityWatchStore, *, reference: Callable[[str, int], tuple[str, ReferenceProfile]]
    ) -> None:
        self._store = store
        self._reference = reference

    def advance(self) -> None:
        """Take in the records that were not seen yet, or the first of them if they are very many."""
        for _ in range(STEPS_AT_ONCE):
            position = self._store.quality_position()
            records = self._store.raw_records_after(position, limit=RECORDS_PER_STEP)
            if not records:
                return
            labels = _labels(records)
            rows = self._store.concepts(labels)
            for key, (labelled, wrong) in labels.items():
                row = rows.get(key) or ConceptRow(*key)
                rows[key] = msgspec.structs.replace(row, state=row.state.counted(labelled, wrong))
            self._look(rows)
            self._store.save_concepts(records[-1].position, list(rows.values()))

    def _look(self, rows: dict[ConceptKey, ConceptRow]) -> None:
        due = [row for row in rows.values() if row.state.labelled >= _least(row)]
        if not due:
            return
        watched = _Watched(self._store, rows)
        for row in due:
            calibration = self._calibration(row)
            if calibration is None:  # nothing is known of the errors that are normal
                rows[row.key] = msgspec.structs.replace(row, state=ConceptState())
                continue
            wrong = round(calibration.samples * (1.0 - calibration.accuracy))
            angle = normal_angle(wrong, calibration.samples)
            others = watched.beside(row)
            state, change = look(row.state, angle, others=others, watched=watched.tests(row.model))
            rows[row.key] = msgspec.structs.replace(row, state=state)
            watched.keep(rows[row.key])
            if change is not AlarmChange.NONE:
                log.warning(
                    "Concept drift %s: %s, %s version %d; %d of the last %d labelled answers were wrong.",
                    change.value,
                    row.device_id or "all devices",
                    row.model,
                    row.version,
                    state.last_wrong,
                    state.last_labelled,
                )

    def _calibration(self, row: ConceptRow) -> Calibration | None:
        try:
            return calibration_of(self._reference(row.model, row.version)[1])
        except MusterError as error:
            log.error("Labels of %s version %d were not judged: %s", row.model, row.version, error)
            return None


class _Watched:
    """Evidence of all tests: of every device for the version that it is to run, and of all together.

    Args:
        store: Knows the tests that this step does not change.
        rows: Those that it does.
    """

    def __init__(self, store: QualityWatchStore, rows: dict[ConceptKey, ConceptRow]) -> None:
        self._store = store
        self._tests: dict[str, int] = {}
        found = {row.key: row for row in (*store.strong_concepts(LEAST_THRESHOLD), *rows.values())}
        self._to_run = store.to_run([key for key in found if key.device_id != EVERY_DEVICE])
        self._strong: dict[ConceptKey, float] = {}
        for row in found.values():
            self.keep(row)

    def keep(self, row: ConceptRow) -> None:
        """Take in what is known of a test now; weak evidence cannot matter to others."""
        self._strong.pop(row.key, None)
        is_watched = row.device_id == EVERY_DEVICE or row.key in self._to_run
        if is_watched and row.state.evidence >= LEAST_THRESHOLD:
            self._strong[row.key] = row.state.evidence

    def beside(self, row: ConceptRow) -> list[float]:
        """Return the evidence of all others."""
        return [evidence for key, evidence in self._strong.items() if key != row.key]

    def tests(self, model: str) -> int:
        """Return how many tests of a model there are: of each device, and of each version on all."""
        if model not in self._tests:
            together = self._store.concepts_of(model, device_id=EVERY_DEVICE)
            self._tests[model] = self._store.devices_to_run(model) + max(1, len(together))
        return self._tests[model]


def _least(row: ConceptRow) -> int:
    """Return how many labels a look takes."""
    return LABELS_TOGETHER if row.device_id == EVERY_DEVICE else LABELS_PER_LOOK


def _labels(records: Iterable[RawRecord]) -> _Labels:
    """Return labelled and wrong answers of each device, and of all together, in windows that can be true."""
    found: _Labels = {}
    for record in records:
        try:
            head = read_head(record.data).body
        except InvalidMessage:
            continue  # the telemetry pass makes it a dead letter
        if not isinstance(head, WindowHead) or not head.labelled or not _is_sound(record):
            continue
        for device_id in (record.device_id, EVERY_DEVICE):
            key = ConceptKey(device_id, head.model, head.version)
            labelled, wrong = found.get(key, (0, 0))
            found[key] = (labelled + head.labelled, wrong + head.labelled - head.correct)
    return found


def _is_sound(record: RawRecord) -> bool:
    try:
        window = read_record(record.data).body
    except InvalidMessage:
        return False
    return isinstance(window, TelemetryWindow) and contradiction(window) is None
