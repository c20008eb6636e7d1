"""How good the answers of a model are: of each version, by cohort or device, over a range of time.

Counts come from roll-ups, as for all questions; the tests for concept drift (`hub.quality`) are as they
stand now, whatever the range. A test of a cohort is there where one of its devices' is: those that found
something are named.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, Protocol

import msgspec

from fleet.quality.doubts import inputs_drift
from fleet.quality.verdict import Counted, Quality, concept_sentence, judge, sentence
from hub.query.series import References
from hub.query.sums import Group, Question, Sum, cohort_of, sums
from hub.store.concept_rows import EVERY_DEVICE, ConceptRow
from hub.store.protocols import DeviceStore, DriftStore, QualityStore, RollupStore, StateStore
from hub.store.telemetry_rows import EVERY_DEVICE as ALL
from hub.store.telemetry_rows import ONE_DEVICE

_OF_INPUTS = "input."
MAX_NAMED = 100
"""Most devices with concept drift that one answer names."""


class QualityQueryStore(RollupStore, QualityStore, DeviceStore, StateStore, Protocol):
    """What the question needs of the store."""


class QualityOf(NamedTuple):
    """What is known of one version in one cohort.

    Attributes:
        cohort: Its value, or a device's id; empty for the whole fleet.
        version: Of the model.
        quality: What counts say.
        test: The test for concept drift of this device, or of all together; None if there is none.
        drifting: Devices of the cohort on which a test has found concept drift, `MAX_NAMED` at most.
        sentences: The same for people.
    """

    cohort: str
    version: int
    quality: Quality
    test: ConceptRow | None
    drifting: tuple[str, ...]
    sentences: tuple[str, ...]


class ConceptStore(QualityStore, DriftStore, Protocol):
    """What counting devices with concept drift needs of the store."""


def devices_with_concept_drift(store: ConceptStore) -> dict[str, int]:
    """Return on how many devices labels show concept drift of the version that they are to run, by model."""
    raised = [row.key for row in store.raised_concepts() if row.device_id != EVERY_DEVICE]
    return dict(Counter(model for _, model, _ in store.to_run(raised)))


def qualities(store: QualityQueryStore, asked: Question, references: References) -> list[QualityOf]:
    """Return the quality of each version in each cohort that did anything, by cohort and version.

    Versions whose bundle the hub does not have are left out: nothing is known of them.

    Args:
        store: Keeps roll-ups and tests.
        asked: Which model, devices and time; versions are kept apart and spans added up.
        references: Of the model's versions.

    Raises:
        InvalidInput: The answer would be too large.
    """
    found = sums(store, msgspec.structs.replace(asked, by_version=True, whole=True))
    tests = _Tests(store, asked)
    return [
        quality
        for group, done in found.items()
        if (quality := _of_group(group, done, references, tests)) is not None
    ]


def _of_group(group: Group, done: Sum, references: References, tests: _Tests) -> QualityOf | None:
    version = group.version or 0
    reference = references.version(version)
    if reference is None:
        return None
    profile = done.profiles.get(version, {})
    quality = judge(reference, Counted(done.predictions, done.labelled, done.correct, done.labels, profile))
    if (moved := tests.inputs_drift(group.value, version)) and quality.estimated is not None:
        quality = quality._replace(doubts=(*quality.doubts, inputs_drift(moved)))
    test, drifting = tests.of(group.value, version), tests.drifting(group.value, version)
    said = [sentence(quality), *(doubt.sentence for doubt in quality.doubts)]
    if test is not None:
        said.append(concept_sentence(test.state, quality))
    if drifting and (test is None or test.device_id == EVERY_DEVICE):
        said.append(f"Labels show concept drift on {', '.join(drifting)}.")
    if quality.unknown_labels:
        said.append(
            f"Labels came {quality.unknown_labels:,} times for predictions that devices did not know."
        )
    return QualityOf(group.value, version, quality, test, drifting, tuple(said))


class _Tests:
    """The tests for concept drift of a model, and the drift alarms of its inputs, by cohort.

    Args:
        store: Keeps them.
        asked: Says what cohorts are.
    """

    def __init__(self, store: QualityQueryStore, asked: Question) -> None:
        self._key = asked.key
        whole_fleet = asked.key == ALL and asked.devices is None
        kept = store.concepts_of(asked.model, device_id=EVERY_DEVICE if whole_fleet else None)
        self._tests = {(row.device_id, row.version): row for row in kept}
        self._has_whole = whole_fleet
        drifting = [(row.device_id, row.version) for row in store.concepts_of(asked.model, raised=True)]
        self._drifting = self._by_cohort(store, asked, drifting)
        inputs = [
            (row.device_id, row.version)
            for row in store.alarming(model=asked.model)
            if any(name.startswith(_OF_INPUTS) for name in row.alarm.raised)
        ]
        self._inputs_drift = self._by_cohort(store, asked, inputs)

    def of(self, cohort: str, version: int) -> ConceptRow | None:
        """Return the one test of a cohort: of a device, or of the whole fleet."""
        if self._key == ONE_DEVICE:
            return self._tests.get((cohort, version))
        return self._tests.get((EVERY_DEVICE, version)) if self._has_whole else None

    def drifting(self, cohort: str, version: int) -> tuple[str, ...]:
        """Return the devices of a cohort on which a test has found concept drift."""
        return tuple(self._drifting.get((cohort, version), [])[:MAX_NAMED])

    def inputs_drift(self, cohort: str, version: int) -> int:
        """Return on how many devices of a cohort a drift alarm names an input."""
        return len(self._inputs_drift.get((cohort, version), []))

    def _by_cohort(
        self, store: QualityQueryStore, asked: Question, found: list[tuple[str, int]]
    ) -> dict[tuple[str, int], list[str]]:
        """Return the devices that are asked for, by cohort and version."""
        cohorts: dict[tuple[str, int], list[str]] = {}
        for device_id, version in found:
            if device_id != EVERY_DEVICE and (asked.devices is None or device_id in asked.devices):
                cohorts.setdefault((self._cohort(store, asked, device_id), version), []).append(device_id)
        return cohorts

    def _cohort(self, store: QualityQueryStore, asked: Question, device_id: str) -> str:
        if asked.key == ONE_DEVICE:
            return device_id
        return "" if asked.key == ALL else cohort_of(store.device(device_id), asked.key, asked.group_by)
