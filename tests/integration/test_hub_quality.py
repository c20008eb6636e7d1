"""The tests for concept drift on a hub's records: each label counts once, and the right alarms are raised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fleet.drift.profile import ReferenceProfile
from fleet.protocol.errors import NotFound
from fleet.protocol.records import TelemetryWindow
from hub.quality import QualityWatch
from hub.store.concept_rows import EVERY_DEVICE, ConceptKey
from hub.store.protocols import Store
from hub.store.rows import OrderChange
from hub.store.sqlite import SqliteStore
from tests.support.confidences import answers_of, reference_of, window_of
from tests.support.stores import add_device, incident, incoming, new_rollout, order

RNG = np.random.default_rng(21)
REFERENCE = reference_of(answers_of(RNG, 600))
DEVICES = tuple(f"cam-{number}" for number in range(12))


@pytest.fixture(name="store")
def store_fixture(tmp_path: Path) -> Iterator[Store]:
    """A store with twelve devices that are to run version 1."""
    store = SqliteStore(tmp_path / "hub.db")
    _fleet(store)
    yield store
    store.close()


def _watch(store: Store) -> QualityWatch:
    def reference(model: str, version: int) -> tuple[str, ReferenceProfile]:
        if model != "digits":
            raise NotFound(f"There is no model {model}.")
        return "a" * 64, REFERENCE

    return QualityWatch(store, reference=reference)


def _fleet(store: Store) -> None:
    for device_id in DEVICES:
        add_device(store, device_id)
    created = store.create_rollout(new_rollout, 1.0)
    orders = [OrderChange(device_id, "digits", order()) for device_id in DEVICES]
    state = created.state
    store.apply_step(state, previous=state, position=0, changes=orders)


def _window(labels: int, wrong: float = 0.0) -> TelemetryWindow:
    answers = answers_of(RNG, 200, wrong=wrong)
    return window_of(REFERENCE, answers, answers.some(np.arange(labels)))


def test_only_where_labels_say_so_the_alarm_is_raised(store: Store) -> None:
    watch = _watch(store)
    for number in range(1, 9):
        windows = [_window(60, 0.6 if device_id == "cam-2" else 0.0) for device_id in DEVICES]
        store.add_records(
            [incoming(device_id, number, w) for device_id, w in zip(DEVICES, windows, strict=True)]
        )
        watch.advance()
    raised = {row.device_id for row in store.concepts_of("digits", raised=True)}
    assert "cam-2" in raised and raised <= {"cam-2", EVERY_DEVICE}


def test_few_labels_of_many_devices_are_enough_together(store: Store) -> None:
    watch = _watch(store)
    for number in range(1, 13):
        store.add_records([incoming(device_id, number, _window(4, 0.6)) for device_id in DEVICES])
        watch.advance()
    raised = {row.device_id for row in store.concepts_of("digits", raised=True)}
    assert raised == {EVERY_DEVICE}


def test_a_record_that_cannot_be_read_stops_nothing(store: Store) -> None:
    damaged = msgspec.structs.replace(incoming("cam-1", 1, _window(10)), data=b"\xc1")
    store.add_records([damaged, incoming("cam-2", 1, _window(10))])
    _watch(store).advance()
    assert store.quality_position() == store.last_position()
    key = ConceptKey("cam-2", "digits", 1)
    assert store.concepts([key])[key].state.labelled == 10


def test_each_label_counts_once_and_after_a_restart_as_well(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    counted: list[int] = []
    for number in (1, 1, 2):  # the second is the first again, as after a lost acknowledgement
        store = SqliteStore(path)
        if not counted:
            _fleet(store)
        store.add_records([incoming("cam-1", number, _window(10))])
        watch = _watch(store)
        watch.advance()
        watch.advance()
        key = ConceptKey("cam-1", "digits", 1)
        counted.append(store.concepts([key])[key].state.labelled)
        store.close()
    assert counted == [10, 10, 20]


@pytest.mark.parametrize("model", ["digits", "unknown"])
def test_what_cannot_be_true_or_judged_counts_nowhere_and_stops_nothing(store: Store, model: str) -> None:
    watch, good = _watch(store), _window(40)
    impossible = msgspec.structs.replace(good, correct=41)
    unknown = msgspec.structs.replace(good, model=model)
    store.add_records(
        [
            incoming("cam-0", 1, impossible),
            incoming("cam-0", 2, incident()),
            incoming("cam-0", 3, unknown),
            incoming("cam-0", 4, msgspec.structs.replace(good, labelled=0, correct=0, labels=msgspec.UNSET)),
        ]
    )
    watch.advance()
    assert store.quality_position() == store.last_position()
    key = ConceptKey("cam-0", model, 1)
    state = store.concepts([key])[key].state
    assert (state.looks, state.labelled) == ((1, 0) if model == "digits" else (0, 0))


def test_some_of_the_devices_count_in_the_look_at_all_whoever_reports_first(store: Store) -> None:
    watch = _watch(store)
    for number in range(1, 13):
        for device_id in DEVICES:
            wrong = 0.9 if device_id in DEVICES[:4] else 0.0
            store.add_records([incoming(device_id, number, _window(30, wrong))])
            watch.advance()
    raised = {row.device_id for row in store.concepts_of("digits", raised=True)}
    assert raised == {EVERY_DEVICE, *DEVICES[:4]}
