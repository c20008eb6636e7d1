"""One device's timeline: reports, windows, alarms, orders and actions from a real store, merged by time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from fleet.drift.alarms import AlarmState, FeatureDrift
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import InvalidInput
from fleet.protocol.messages import encode
from fleet.protocol.records import packed
from fleet.rollout.engine import step
from fleet.rollout.events import Start
from hub.query.timeline import Kind, timeline
from hub.query.times import TimeRange
from hub.store.rows import Action, DriftRow, OrderChange
from hub.store.sqlite import SqliteStore
from hub.store.telemetry_rows import DAY_S, HOUR_S, TelemetryStep
from tests.support.rollups import DeviceWindow, keep_windows, reference, values_window
from tests.support.stores import add_device, incident, incoming, new_rollout, order, report

EVER = TimeRange(0.0, 100 * HOUR_S)
LOOK = FeatureDrift("input.mean", 500, True, 3.0, evidence=9.0, split="below 0", share=0.9, expected=0.5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """A device, ordered a version at 2 s, told at 20 s what became of it, drifts from 9,000 s on."""
    with closing(SqliteStore(tmp_path_factory.mktemp("store") / "hub.db")) as opened:
        for name in ("cam-1", "cam-2"):
            add_device(opened, name)
        row = opened.create_rollout(new_rollout, 1.0)
        started, _ = step(row.state, Start(by="ana"), 2.0)
        change = OrderChange("cam-1", "digits", order(2))
        opened.apply_step(started, previous=row.state, position=0, changes=[change])
        told = [
            incoming("cam-1", 1, report(DeploymentState.TRIAL)),
            incoming("cam-1", 2, report(DeploymentState.SUCCEEDED)),
            incoming("cam-2", 1, incident()),
        ]
        opened.add_records(told)
        opened.tag("cam-1", add=["lab"], remove=[], action=Action(7000.5, "ana", "Tags changed: +lab."))
        rng, profile = np.random.default_rng(0), reference()
        windows = [values_window(profile, 10.0 + hour * HOUR_S, rng=rng, errors=7) for hour in range(3)]
        keep_windows(opened, [DeviceWindow("cam-1", {}, window) for window in windows])
        drift = DriftRow("cam-1", "digits", 1, AlarmState(2, ("input.mean",)), (LOOK,), raised_at_s=9000.0)
        totals = {("cam-1", "digits", 1): encode(packed(windows[0]))}
        opened.save_telemetry(TelemetryStep(0, 3, totals=totals, drift=[drift]))
        yield opened


def test_all_accounts_are_merged_newest_first(store: SqliteStore) -> None:
    found = list(timeline(store, "cam-1", EVER, HOUR_S, tuple(Kind)))
    assert all(later.at_s >= earlier.at_s for later, earlier in pairwise(found))
    assert [(entry.at_s, entry.kind) for entry in found if entry.at_s != 20.0] == [
        (9000.0, Kind.ALARM),
        (2.0 * HOUR_S, Kind.WINDOW),
        (7000.5, Kind.ACTION),
        (1.0 * HOUR_S, Kind.WINDOW),
        (2.0, Kind.ORDER),
        (0.0, Kind.WINDOW),
    ]
    said = [entry for entry in found if entry.at_s == 20.0]
    assert [(entry.kind, entry.state) for entry in said] == [
        (Kind.DEPLOYMENT, "SUCCEEDED"),
        (Kind.DEPLOYMENT, "TRIAL"),
    ]


def test_an_entry_says_what_happened(store: SqliteStore) -> None:
    told = {entry.kind: entry for entry in timeline(store, "cam-1", EVER, HOUR_S, tuple(Kind))}
    assert told[Kind.ORDER].text == "Rollout 1 orders version 2 of digits."
    assert told[Kind.WINDOW].text.startswith(
        "digits version 1, 1 h: 400 answers, 7 failed, 100 of 200 labelled ones right, 99 % within"
    )
    assert "90.0% of 500 values below 0" in told[Kind.ALARM].text
    assert (told[Kind.ACTION].by, told[Kind.ACTION].text) == ("ana", "Tags changed: +lab.")
    assert told[Kind.DEPLOYMENT].device_at_s == 10.0
    other = list(timeline(store, "cam-2", EVER, HOUR_S, tuple(Kind)))
    assert [(entry.kind, entry.text) for entry in other if entry.kind is not Kind.ORDER] == [
        (Kind.INCIDENT, "The disk is full.")
    ]


def test_kinds_and_times_are_chosen(store: SqliteStore) -> None:
    found = timeline(store, "cam-1", EVER, HOUR_S, (Kind.DEPLOYMENT,))
    assert {entry.kind for entry in found} == {Kind.DEPLOYMENT}
    found = timeline(store, "cam-1", TimeRange(15.0, 8000.0), HOUR_S, (Kind.ACTION, Kind.ORDER, Kind.ALARM))
    assert [entry.kind for entry in found] == [Kind.ACTION]
    assert not list(timeline(store, "cam-1", TimeRange(21.0, 30.0), HOUR_S, (Kind.DEPLOYMENT,)))


def test_windows_of_too_long_a_time_are_refused_and_days_hold_them(store: SqliteStore) -> None:
    years = TimeRange(0.0, 3000.0 * HOUR_S)
    with pytest.raises(InvalidInput):
        timeline(store, "cam-1", years, HOUR_S, (Kind.WINDOW,))
    days = list(timeline(store, "cam-1", years, DAY_S, (Kind.WINDOW,)))
    assert [entry.text[:38] for entry in days] == ["digits version 1, 24 h: 1,200 answers,"]


def test_alarms_are_those_that_are_raised_now(store: SqliteStore) -> None:
    row = store.drift(device_id="cam-1")[0]
    calm = msgspec.structs.replace(row, alarm=AlarmState(4), raised_at_s=None)
    store.save_telemetry(TelemetryStep(3, 4, drift=[calm]))
    assert not list(timeline(store, "cam-1", EVER, HOUR_S, (Kind.ALARM,)))
    store.save_telemetry(TelemetryStep(4, 5, drift=[row]))
