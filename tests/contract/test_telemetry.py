"""The telemetry pass on every store: what is counted where, what is refused, and nothing counts twice."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import reduce

import msgspec
import numpy as np
import pytest

from fleet.drift.encoding import encode_profile
from fleet.drift.matrix import Layout
from fleet.drift.profile import (
    MAX_COUNT,
    FeatureCounts,
    ReferenceProfile,
    categorical_reference,
    count,
    numeric_reference,
)
from fleet.protocol.errors import Conflict, NotFound, StorageError
from fleet.protocol.messages import encode
from fleet.protocol.records import TelemetryWindow
from fleet.protocol.windows import merge_windows
from hub.store.protocols import Store
from hub.store.telemetry_rows import DAY_S, HOUR_S, MINUTE_S, RollupRow, TelemetryStep
from hub.telemetry.counting import Telemetry
from tests.support.stores import DIGEST, add_device, incident, incoming, window

NOW_S = 1_700_000_000.0
RNG = np.random.default_rng(3)
REFERENCE = ReferenceProfile(
    (
        numeric_reference("input.mean", RNG.normal(size=500), bins=8),
        categorical_reference("output.class", RNG.integers(0, 3, 500), 3),
    )
)
DEVICES = ("cam-1", "cam-2", "cam-3")


def _reference(model: str, version: int) -> tuple[str, ReferenceProfile]:
    if version == 99:
        raise NotFound(f"{model} version 99 is not registered.")
    return DIGEST, REFERENCE


def _telemetry(store: Store, block_predictions: int = 10_000) -> Telemetry:
    return Telemetry(store, reference=_reference, block_predictions=block_predictions, group_by=("site",))


def _window(ended_at_s: float, predictions: int = 5, *, version: int = 1) -> TelemetryWindow:
    body = window(version=version, predictions=predictions)
    body.started_at_s, body.ended_at_s = ended_at_s - 10, ended_at_s
    body.profile = {
        "input.mean": count(REFERENCE.features[0], RNG.normal(size=predictions)),
        "output.class": count(REFERENCE.features[1], RNG.integers(0, 3, predictions)),
    }
    return body


def _store_windows(store: Store, sent: Iterable[tuple[str, TelemetryWindow]], *, first: int = 0) -> None:
    records = [
        msgspec.structs.replace(incoming(device_id, number, body), received_at_s=NOW_S)
        for number, (device_id, body) in enumerate(sent, start=first)
    ]
    store.add_records(records)


@pytest.fixture(autouse=True)
def devices(store: Store) -> None:
    """Let there be a few."""
    for device_id in DEVICES:
        add_device(store, device_id)


def test_a_window_is_in_every_sum_that_it_belongs_to(store: Store) -> None:
    minute_s = NOW_S // 60 * 60
    sent = [
        ("cam-1", _window(minute_s + 1)),
        ("cam-2", _window(minute_s + 2)),
        ("cam-2", _window(minute_s - 1)),
    ]
    _store_windows(store, sent)
    _telemetry(store).advance()
    both, all_three = _merged([sent[0][1], sent[1][1]]), _merged([body for _, body in sent])
    for key, value in (("all", ""), ("site", "lyon"), ("architecture", "x86_64")):
        rows = _rollups(store, key, MINUTE_S)
        assert [(row.value, row.start_s, row.windows, row.devices) for row in rows] == [
            (value, minute_s - 60, 1, 1),
            (value, minute_s, 2, 2),
        ]
        assert rows[1].window == both
        [day] = _rollups(store, key, DAY_S)
        assert (day.window, day.windows, day.devices) == (all_three, 3, 2)
        assert _merged([row.window for row in _rollups(store, key, HOUR_S)]) == all_three
    by_device = {row.value: row for row in _rollups(store, "device", DAY_S)}
    assert by_device["cam-1"].window == sent[0][1]
    assert by_device["cam-2"].window == _merged([sent[1][1], sent[2][1]])
    totals = {row.device_id: row.totals for row in store.totals()}
    assert totals["cam-2"] == msgspec.structs.replace(by_device["cam-2"].window, profile={})


def test_however_it_is_cut_into_steps_and_runs_the_sums_are_the_same(store: Store) -> None:
    rng = random.Random(5)
    sent = [
        (rng.choice(DEVICES), _window(NOW_S - rng.uniform(0, 3 * DAY_S), version=rng.choice([1, 2])))
        for _ in range(60)
    ]
    telemetry = _telemetry(store)
    first = 0
    while first < len(sent):
        some = sent[first : first + rng.randrange(1, 9)]
        _store_windows(store, some, first=first)
        first += len(some)
        if rng.random() < 0.5:
            _store_windows(store, some, first=first - len(some))  # they come again
        telemetry.advance()
        telemetry = _telemetry(store)  # a new run knows what is stored, and nothing else
    expected: dict[tuple[str, int, int, int], list[TelemetryWindow]] = defaultdict(list)
    for device_id, body in sent:
        for key in ("all", device_id):
            for duration_s in (MINUTE_S, HOUR_S, DAY_S):
                start_s = int(body.ended_at_s // duration_s) * duration_s
                expected[key, body.version, duration_s, start_s].append(body)
    for duration_s in (MINUTE_S, HOUR_S, DAY_S):
        found = _rollups(store, "all", duration_s)
        if duration_s != MINUTE_S:
            found += _rollups(store, "device", duration_s)
        wanted = {
            key for key in expected if key[2] == duration_s and (key[0] == "all" or duration_s != MINUTE_S)
        }
        assert {(row.value or "all", row.version, duration_s, row.start_s) for row in found} == wanted
        for row in found:
            members = expected[row.value or "all", row.version, duration_s, row.start_s]
            assert (row.windows, _comparable(row.window)) == (len(members), _comparable(_merged(members)))


def test_a_step_that_cannot_be_stored_changes_nothing(store: Store) -> None:
    _store_windows(store, [("cam-1", _window(NOW_S))])
    telemetry = _telemetry(store)
    with pytest.raises(Conflict):
        store.save_telemetry(TelemetryStep(previous=3, position=4))
    assert (store.telemetry_position(), telemetry.backlog()) == (0, 1)
    telemetry.advance()
    assert (store.telemetry_position(), telemetry.backlog()) == (1, 0)


def test_a_reference_that_cannot_be_read_just_now_stops_the_pass_and_loses_nothing(store: Store) -> None:
    _store_windows(store, [("cam-1", _window(NOW_S))])

    def fails(model: str, version: int) -> tuple[str, ReferenceProfile]:
        raise StorageError("The disk cannot be read.")

    with pytest.raises(StorageError):
        Telemetry(store, reference=fails, block_predictions=100).advance()
    assert not store.totals()
    assert not store.dead_letters()
    _telemetry(store).advance()
    assert store.totals()[0].totals.predictions == 5


def test_what_is_wrong_with_a_window_is_a_dead_letter_and_the_rest_counts(store: Store) -> None:
    good = _window(NOW_S)
    other_cells = _window(NOW_S)
    other_cells.profile["output.class"] = FeatureCounts([1, 2])
    too_many = _window(NOW_S, 3)
    too_many.predictions = 2
    wrong = [
        _window(NOW_S, version=99),
        msgspec.structs.replace(good, manifest_sha256="cd" * 32),
        msgspec.structs.replace(good, started_at_s=NOW_S + 1),
        msgspec.structs.replace(good, profile={"unknown": FeatureCounts([1])}),
        other_cells,
        too_many,
    ]
    _store_windows(store, [("cam-1", good), *(("cam-2", body) for body in wrong), ("cam-3", good)])
    store.add_records([incoming("cam-1", 100, incident())])
    telemetry = _telemetry(store)
    telemetry.advance()
    letters = store.dead_letters()
    assert {letter.device_id for letter in letters} == {"cam-2"}
    assert sorted(letter.cause.code for letter in letters) == ["invalid_message"] * 5 + ["not_found"]
    assert [row.device_id for row in store.totals()] == ["cam-1", "cam-3"]
    assert telemetry.progress == (2, 6, 0, 0)


def test_counts_that_are_damaged_are_a_dead_letter(store: Store) -> None:
    body = _window(NOW_S)
    record = incoming("cam-1", 1, body)
    whole = msgspec.msgpack.decode(record.data)
    whole["body"]["counts"] = encode_profile(body.profile)[:-3]
    store.add_records([msgspec.structs.replace(record, data=msgspec.msgpack.encode(whole))])
    _telemetry(store).advance()
    assert len(store.dead_letters()) == 1
    assert not store.totals()


@pytest.mark.parametrize("ended_at_s", [100.0, 946_684_800.0, NOW_S + 3600.0, NOW_S - 500 * 86400.0])
def test_a_window_of_a_clock_that_is_years_away_counts_as_of_when_it_was_received(
    store: Store, ended_at_s: float
) -> None:
    _store_windows(store, [("cam-1", _window(ended_at_s)), ("cam-1", _window(NOW_S - 2 * DAY_S))])
    telemetry = _telemetry(store)
    telemetry.advance()
    assert [row.start_s for row in _rollups(store, "all", DAY_S)] == [
        (NOW_S - 2 * DAY_S) // DAY_S * DAY_S,
        NOW_S // DAY_S * DAY_S,
    ]
    assert telemetry.progress.misdated == 1
    assert not store.dead_letters()


def test_a_sum_that_is_as_large_as_can_be_stays_readable(store: Store) -> None:
    claimed = msgspec.structs.replace(_window(NOW_S), predictions=MAX_COUNT - 3)
    totals = {("cam-1", "digits", 1): encode(msgspec.structs.replace(claimed, profile={}))}
    store.save_telemetry(TelemetryStep(totals=totals))
    _store_windows(store, [("cam-1", _window(NOW_S))])
    _telemetry(store).advance()
    assert store.totals()[0].totals.predictions == MAX_COUNT - 3
    assert _rollups(store, "device", DAY_S)[0].window.predictions == 5


def test_a_step_takes_no_more_than_fits_into_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.telemetry.reading.MAX_NUMBERS", 2 * Layout.of(REFERENCE).columns)
    for number in range(6):
        _store_windows(store, [("cam-1", _window(NOW_S))], first=number)
    telemetry = _telemetry(store)
    assert telemetry.step()
    assert store.telemetry_position() == 3
    telemetry.advance()
    assert store.totals()[0].totals.predictions == 30


def _rollups(store: Store, key: str, resolution_s: int) -> list[RollupRow]:
    return store.rollups(model="digits", key=key, start_s=0, end_s=NOW_S + DAY_S, resolution_s=resolution_s)


def _merged(windows: Sequence[TelemetryWindow]) -> TelemetryWindow:
    return reduce(merge_windows, windows)


def _comparable(body: TelemetryWindow) -> TelemetryWindow:
    return msgspec.structs.replace(body, latency=dict(sorted(body.latency.items())))
