"""Retention on every store: what goes, what stays, and that what was deleted is never counted again."""

from __future__ import annotations

import msgspec

from fleet.drift.profile import ReferenceProfile
from fleet.protocol.records import RecordBody
from hub.retention import Limits, Retention
from hub.store.concept_rows import ConceptRow
from hub.store.protocols import Store
from hub.store.rows import OrderChange
from hub.store.telemetry_rows import DAY_S, HOUR_S, MINUTE_S
from hub.telemetry.counting import Telemetry
from tests.contract.test_store_devices import _apply
from tests.support.stores import (
    DIGEST,
    add_device,
    incident,
    incoming,
    new_rollout,
    order,
    records_after,
    report,
    window,
)

NOW_S = 1_700_000_000.0
LIMITS = Limits(
    windows_s=1 * DAY_S, minutes_s=2 * DAY_S, hours_s=10 * DAY_S, days_s=100 * DAY_S, events_s=50 * DAY_S
)
AGES_DAYS = (200, 60, 20, 5, 1.5, 0)


def _fill(store: Store) -> Telemetry:
    """Store a window and an incident of each age, and count them."""
    add_device(store, "cam-1")
    for number, age_days in enumerate(AGES_DAYS):
        at_s = NOW_S - age_days * DAY_S
        body = window()
        body.started_at_s, body.ended_at_s = at_s - 10, at_s
        bodies: tuple[RecordBody, ...] = (body, incident())
        records = [incoming("cam-1", 2 * number + kind, each) for kind, each in enumerate(bodies)]
        store.add_records([msgspec.structs.replace(record, received_at_s=at_s) for record in records])
    telemetry = _telemetry(store)
    telemetry.advance()
    store.save_concepts(store.last_position(), [])
    return telemetry


def _telemetry(store: Store) -> Telemetry:
    return Telemetry(store, reference=lambda *_: (DIGEST, ReferenceProfile(())), block_predictions=1000)


def _sums(store: Store, key: str, resolution_s: int) -> int:
    rows = store.rollups(model="digits", key=key, start_s=0, end_s=NOW_S + DAY_S, resolution_s=resolution_s)
    return sum(row.windows for row in rows)


def test_everything_is_kept_for_its_time_and_then_forgotten(store: Store) -> None:
    _fill(store)
    assert Retention(store, LIMITS).run(NOW_S) > 0
    kinds = [type(record.body).__name__ for record in records_after(store, 0)]
    assert kinds.count("TelemetryWindow") == 1
    assert kinds.count("Incident") == 4
    assert [_sums(store, "all", each) for each in (MINUTE_S, HOUR_S, DAY_S)] == [2, 3, 5]
    assert [_sums(store, "device", each) for each in (HOUR_S, DAY_S)] == [3, 5]
    assert store.totals()[0].totals.predictions == 60
    assert Retention(store, LIMITS).run(NOW_S) == 0


def test_what_was_deleted_and_comes_again_is_not_counted_again(store: Store) -> None:
    telemetry = _fill(store)
    Retention(store, LIMITS).run(NOW_S)
    assert store.add_records([incoming("cam-1", 4, window())]) == 0
    telemetry.advance()
    assert store.totals()[0].totals.predictions == 60


def test_what_was_not_read_by_all_is_not_deleted(store: Store) -> None:
    _fill(store)
    store.add_records([incoming("cam-1", 100 + number, window()) for number in range(3)])
    store.add_records([incoming("cam-1", 200, report())])
    before = len(records_after(store, 0))
    position = store.telemetry_position()
    assert store.read_by_all() == position
    Retention(store, LIMITS).run(2 * NOW_S)
    assert len([record for record in records_after(store, 0) if record.position > position]) == 4 < before


def test_an_open_rollout_holds_back_what_it_has_not_read(store: Store) -> None:
    _fill(store)
    rollout = store.create_rollout(new_rollout, NOW_S)
    assert store.read_by_all() == store.last_position()
    running = msgspec.structs.replace(rollout.state, status=type(rollout.state.status).RUNNING, revision=99)
    store.apply_step(running, previous=rollout.state, position=3, changes=[])
    assert store.read_by_all() == 3


def test_a_version_that_a_device_left_is_forgotten_and_one_that_it_is_to_run_is_not(store: Store) -> None:
    _fill(store)
    store.add_records([incoming("cam-1", 300, window(version=2))])
    _telemetry(store).advance()
    _apply(store, OrderChange("cam-1", "digits", order(2)))
    tests = [ConceptRow("cam-1", "digits", version) for version in (1, 2)]
    store.save_concepts(store.last_position(), tests)
    assert store.forget_versions(before_s=10.0, limit=10) == 0
    Retention(store, LIMITS).run(NOW_S + 101 * DAY_S)
    assert store.concepts_of("digits") == tests[1:]
    assert [total.version for total in store.totals()] == [2]
    assert not store.drift_blocks([("cam-1", "digits", 1)])
    assert store.drift_blocks([("cam-1", "digits", 2)])


def test_space_is_given_back(store: Store) -> None:
    add_device(store, "cam-1")
    for first in range(0, 3000, 500):
        store.add_records([incoming("cam-1", first + number, window()) for number in range(500)])
    _telemetry(store).advance()
    store.save_concepts(store.last_position(), [])
    full_bytes = store.size_bytes()
    Retention(store, LIMITS).run(2 * NOW_S)
    store.add_records([incoming("cam-1", 9999, window())])
    assert store.size_bytes() < full_bytes / 3
