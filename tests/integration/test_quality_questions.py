"""Quality asked of a store: by cohort and device, with what drift alarms and labels say against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fleet.alerts.thresholds import Thresholds
from fleet.drift.alarms import AlarmState
from fleet.drift.profile import ReferenceProfile
from fleet.health import HealthPolicy
from fleet.protocol.errors import NotFound
from fleet.protocol.messages import ModelState, StateReport
from fleet.quality.concept import ConceptState
from fleet.quality.doubts import DoubtCode
from hub.alerts.facts import FleetLook, HubCounts
from hub.query.quality import QualityOf, devices_with_concept_drift, qualities
from hub.query.series import References
from hub.query.sums import Question
from hub.query.times import TimeRange
from hub.store.concept_rows import EVERY_DEVICE, ConceptRow
from hub.store.rows import DriftRow, OrderChange
from hub.store.sqlite import SqliteStore
from hub.store.state_rows import StateRules
from hub.store.telemetry_rows import HOUR_S, TelemetryStep
from tests.support.confidences import answers_of, reference_of, window_of
from tests.support.rollups import DeviceWindow, keep_windows
from tests.support.stores import DIGEST, new_device, new_rollout, order, say

RNG = np.random.default_rng(13)
REFERENCE = reference_of(answers_of(RNG, 500))
SITES = {"cam-1": "lyon", "cam-2": "lyon", "cam-3": "oslo"}
WITHIN = TimeRange(0.0, 2.0 * HOUR_S)


@pytest.fixture(name="store")
def store_fixture(tmp_path: Path) -> Iterator[SqliteStore]:
    """Three devices with a window each, and one of a version that the hub does not have."""
    store = SqliteStore(tmp_path / "hub.db")
    sent = []
    for device_id, site in SITES.items():
        store.add_enrolment_token(device_id, created_at_s=0.0, expires_at_s=1e9)
        joining = msgspec.structs.replace(new_device(device_id), attributes={"site": site})
        store.enrol(joining, token_sha256=device_id, now_s=1.0)
        answers = answers_of(RNG, 300)
        window = window_of(REFERENCE, answers, answers.some(np.arange(40)))
        sent.append(DeviceWindow(device_id, {"site": site}, window))
    sent.append(DeviceWindow("cam-1", {"site": "lyon"}, msgspec.structs.replace(window, version=9)))
    keep_windows(store, sent)
    yield store
    store.close()


def _asked(store: SqliteStore, key: str = "all") -> dict[str, QualityOf]:
    def read(model: str, version: int) -> tuple[str, ReferenceProfile]:
        if version != 1:
            raise NotFound(f"There is no {model} version {version}.")
        return DIGEST, REFERENCE

    question = Question("digits", WITHIN, HOUR_S, key=key, group_by=("site",))
    found = qualities(store, question, References(read, "digits"))
    assert {one.version for one in found} == {1}
    return {one.cohort: one for one in found}


def test_counts_of_a_cohort_are_added_up_and_judged_by_their_version(store: SqliteStore) -> None:
    whole, sites, devices = _asked(store), _asked(store, "site"), _asked(store, "device")
    assert whole[""].quality.answers == 900 and whole[""].quality.labelled == 120
    assert {site: one.quality.answers for site, one in sites.items()} == {"lyon": 600, "oslo": 300}
    assert {device: one.quality.labelled for device, one in devices.items()} == dict.fromkeys(SITES, 40)
    for one in (*whole.values(), *sites.values(), *devices.values()):
        assert one.quality.powered is not None and one.quality.doubts == ()
        assert one.test is None and one.drifting == ()


def test_concept_drift_is_told_where_it_was_found(store: SqliteStore) -> None:
    raised = ConceptState(looks=4, raised=True, last_labelled=30, last_wrong=20)
    calm = ConceptState(looks=4)
    rows = [ConceptRow("cam-2", "digits", 1, raised), ConceptRow("cam-3", "digits", 1, calm)]
    store.save_concepts(1, [*rows, ConceptRow(EVERY_DEVICE, "digits", 1, calm)])
    assert {site: one.drifting for site, one in _asked(store, "site").items()} == {
        "lyon": ("cam-2",),
        "oslo": (),
    }
    devices = _asked(store, "device")
    assert [device for device, one in devices.items() if one.drifting] == ["cam-2"]
    assert (devices["cam-1"].test, devices["cam-3"].test) == (None, rows[1])
    whole = _asked(store)[""]
    assert whole.test is not None and whole.test.device_id == EVERY_DEVICE
    assert "cam-2" in whole.sentences[-1]


def _report(store: SqliteStore) -> None:
    """All devices say that they run version 1, as they were ordered to."""
    store.adopt_rules(StateRules(HealthPolicy(silence_limit_s=100.0), ("site",)))
    rollout = store.create_rollout(new_rollout, 1.0).state
    orders = [OrderChange(device_id, "digits", order()) for device_id in SITES]
    store.apply_step(rollout, previous=rollout, position=0, changes=orders)
    for device_id in SITES:
        state = ModelState("digits", 1, DIGEST, "onnx", "COMMITTED", None)
        say(store, device_id, 10.0, report=StateReport(10.0, 0, (state,)))


def test_estimates_are_doubted_where_inputs_drift(store: SqliteStore) -> None:
    _report(store)
    alarms = [
        DriftRow("cam-2", "digits", 1, alarm=AlarmState(looks=3, raised=("input.contrast",))),
        DriftRow("cam-3", "digits", 1, alarm=AlarmState(looks=3, raised=("output.class",))),
    ]
    store.save_telemetry(TelemetryStep(previous=0, position=1, drift=alarms))
    while store.refresh_states(now_s=11.0):
        pass
    doubted = {device: one.quality.doubts for device, one in _asked(store, "device").items()}
    assert [doubt.code for doubt in doubted.pop("cam-2")] == [DoubtCode.INPUTS_DRIFT]
    assert set(doubted.values()) == {()}
    assert [doubt.code for doubt in _asked(store, "site")["lyon"].quality.doubts] == [DoubtCode.INPUTS_DRIFT]


def test_concept_drift_of_what_devices_run_is_an_alert(store: SqliteStore) -> None:
    _report(store)
    raised = ConceptState(looks=4, raised=True, last_labelled=30, last_wrong=20)
    rows = [
        ConceptRow(device_id, "digits", version, raised)
        for device_id, version in (("cam-2", 1), ("cam-3", 9))
    ]
    store.save_concepts(1, [*rows, ConceptRow(EVERY_DEVICE, "digits", 9, raised)])
    while store.refresh_states(now_s=11.0):
        pass
    assert devices_with_concept_drift(store) == {"digits": 1}
    look = FleetLook(
        store,
        Thresholds(),
        broker_connected=lambda: True,
        counts=lambda: HubCounts(taken=0, refused=0, backlog=0),
    )
    (found,) = [one for one in look.findings(11.0) if one.matter.kind == "concept_drift"]
    assert (found.matter.key, found.devices) == ("concept_drift:digits:1", ("cam-2",))
    assert found.matter.evidence == ("cam-2: 20 of the last 30 labelled answers are wrong",)
