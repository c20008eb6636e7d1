"""Looks at a store: what is found in it, who is told of it by which route, and what silences and gaps do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fleet.alerts.alert import Severity, State
from fleet.alerts.matching import Match, Silence
from fleet.alerts.telling import Occasion
from fleet.alerts.thresholds import Thresholds
from fleet.drift.alarms import AlarmState, FeatureDrift
from fleet.health import HealthPolicy
from fleet.protocol.board import BoardWindow
from fleet.protocol.errors import Cause
from fleet.protocol.messages import ModelState, StateReport
from fleet.rollout.engine import step
from fleet.rollout.events import Pause, Start
from fleet.rollout.state.rollout import Status
from hub.alerts.facts import FleetLook, HubCounts
from hub.alerts.receivers import Alertmanager, Webhook
from hub.alerts.settings import AlertSettings, Route
from hub.alerts.watch import AlertWatch
from hub.store.alert_rows import AlertMessage, Outcome
from hub.store.rows import DriftRow, OrderChange, QuarantineRow
from hub.store.sqlite import SqliteStore
from hub.store.state_rows import StateRules
from hub.store.telemetry_rows import TelemetryStep
from tests.support.stores import new_device, new_rollout, order, say

NOW_S = 10_000.0
RULES = Thresholds(group_wait_s=30.0, offline_hold_s=0.0, clear_after_s=0.0, refused_messages=5)
DIRTY = ("cam-0", "cam-1")
LOOK = FeatureDrift(
    "input.mean", samples=300, drifted=True, threshold=4.2, evidence=9.1, split="below 0.2", share=0.7
)


class Scene:
    """A fleet of ten cameras on a store, a hub that looks at it, and three receivers that are told."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path)
        self.store.adopt_rules(StateRules(HealthPolicy(silence_limit_s=1e9), ()))
        self.counts = HubCounts(0, 0, 0)
        self.connected = True
        self.now_s = NOW_S
        self.woken = 0
        self._rollout = self.store.create_rollout(new_rollout, NOW_S).state
        self._steps = 0
        for number in range(10):
            self._join(f"cam-{number}", "cam-b" if number < 2 else "cam-a")
        url = "http://127.0.0.1:1"
        settings = AlertSettings(
            rules=RULES,
            regroup_interval_s=100.0,
            repeat_interval_s=1000.0,
            receiver=(
                Webhook(name="all", url=url, secret_env="X"),
                Webhook(name="pager", url=url, secret_env="X"),
                Alertmanager(name="am", url=url),
            ),
            route=(
                Route(receivers=("all", "am")),
                Route(receivers=("pager", "all"), severities=(Severity.CRITICAL,)),
            ),
        )
        look = FleetLook(
            self.store, RULES, broker_connected=lambda: self.connected, counts=lambda: self.counts
        )
        self.watch = AlertWatch(
            self.store,
            settings,
            findings=look.findings,
            gather_s=lambda receiver: 20.0 if receiver == "all" else 0.0,
            on_messages=self._wake,
        )

    def look(self, after_s: float = 0.0) -> list[AlertMessage]:
        """Look after some time, and return what is to be told now; every receiver takes what it is told."""
        self.now_s += after_s
        while self.store.refresh_states(now_s=self.now_s):
            pass
        before = self.woken
        self.watch.look(self.now_s)
        told = [
            message
            for receiver in ("all", "pager", "am")
            for message in self.store.messages_due(receiver, self.now_s + 60.0)
        ]
        assert bool(told) == (self.woken > before), "the delivery is woken exactly if there is something"
        self.store.save_messages(
            [msgspec.structs.replace(m, outcome=Outcome.SENT, ended_at_s=1.0) for m in told]
        )
        return told

    def looks(self, seconds: float) -> list[AlertMessage]:
        """Look every 10 s for a while, and return all that is to be told."""
        return [message for _ in range(int(seconds / 10)) for message in self.look(10.0)]

    def drift(self, *devices: str, raised: bool = True) -> None:
        """Let devices drift, or not any more."""
        alarm = AlarmState(looks=3, raised=("input.mean",) if raised else ())
        rows = [DriftRow(device, "digits", 1, alarm, (LOOK,)) for device in devices]
        self.store.save_telemetry(TelemetryStep(self._steps, self._steps + 1, drift=rows))
        self._steps += 1

    def online(self, online: bool, *devices: str) -> None:
        """Let devices connect or leave."""
        for device in devices:
            say(self.store, device, self.now_s, online=online)

    def _join(self, device: str, camera: str) -> None:
        self.store.add_enrolment_token(device, created_at_s=0.0, expires_at_s=1e9)
        joining = msgspec.structs.replace(new_device(device), attributes={"camera": camera})
        self.store.enrol(joining, token_sha256=device, now_s=NOW_S)
        change = OrderChange(device, "digits", order(1))
        self.store.apply_step(self._rollout, previous=self._rollout, position=0, changes=[change])
        runs = ModelState("digits", 1, "ab" * 32, "onnx-fp32", "COMMITTED", None)
        say(self.store, device, NOW_S, report=StateReport(NOW_S, 1, (runs,)))

    def _wake(self) -> None:
        self.woken += 1


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "hub.db")
    yield made
    made.store.close()


def _told(messages: list[AlertMessage]) -> list[tuple[str, str, str]]:
    return sorted((m.receiver, m.occasion.value, m.alert.matter.key) for m in messages)


def test_a_fleet_that_is_well_has_no_alert(scene: Scene) -> None:
    assert scene.looks(100.0) == []
    assert scene.store.alerts() == []


def test_dirty_cameras_are_one_alert_that_names_what_they_share(scene: Scene) -> None:
    scene.drift(*DIRTY)
    assert scene.looks(30.0) == []
    messages = scene.look(10.0)
    key = "drift:digits:input.mean"
    assert _told(messages) == [("all", "raised", key), ("am", "raised", key)]
    gathered = {m.receiver: m.due_at_s - m.created_at_s for m in messages}
    assert gathered == {"all": 20.0, "am": 0.0}
    matter = scene.store.alert(key).matter
    assert matter.devices == DIRTY
    assert matter.severity is Severity.WARNING
    assert "camera=cam-b" in matter.affected[0]
    assert "70.0% of 300 values below 0.2" in matter.evidence[0]
    scene.drift(*DIRTY, raised=False)
    scene.look(10.0)
    assert scene.store.alert(key).state is State.RESOLVED


def test_what_spreads_is_told_as_one_and_reaches_who_asked_for_what_is_critical(scene: Scene) -> None:
    scene.drift("cam-0")
    scene.looks(40.0)
    scene.drift(*(f"cam-{number}" for number in range(10)))
    messages = [m for m in scene.looks(100.0) if m.receiver != "am"]
    key = "drift:digits:input.mean"
    assert _told(messages) == [("all", "grew", key), ("pager", "raised", key)]
    assert {m.alert.matter.device_count for m in messages} == {10}
    assert {m.alert.identity for m in messages} == {scene.store.alert(key).identity}


def test_an_acknowledged_alert_is_not_repeated_but_where_it_would_be_forgotten(scene: Scene) -> None:
    scene.online(False, *(f"cam-{number}" for number in range(4)))
    assert {m.occasion for m in scene.look()} == {Occasion.RAISED}
    repeated = [m.receiver for m in scene.looks(1000.0) if m.occasion is Occasion.REPEATED]
    assert (repeated.count("all"), repeated.count("am")) == (1, 16)
    acknowledged = scene.watch.acknowledge("offline", by="ana", note="on\nmy way").acknowledged
    assert acknowledged is not None
    assert (acknowledged.by, acknowledged.note) == ("ana", "on my way")
    repeated = [m.receiver for m in scene.looks(1000.0) if m.occasion is Occasion.REPEATED]
    assert repeated.count("all") == 0
    assert repeated.count("am") >= 16
    scene.online(True, *(f"cam-{number}" for number in range(4)))
    scene.look(10.0)
    assert [m.occasion for m in scene.store.messages_about(scene.store.alert("offline"))][-2:] == [
        Occasion.RESOLVED,
        Occasion.RESOLVED,
    ]


def test_a_silence_mutes_a_device_and_not_the_others(scene: Scene) -> None:
    scene.online(False, "cam-3")
    silence = scene.store.add_silence(lambda number: _silence(number, scene.now_s, device="cam-3"))
    assert scene.look() == []
    assert scene.store.alert("offline").silence == silence.number
    scene.online(False, "cam-4")
    assert {m.receiver for m in scene.look(10.0)} == {"all", "am"}
    assert scene.store.alert("offline").silence is None


def test_the_end_is_told_to_who_was_told_whatever_is_silenced_then(scene: Scene) -> None:
    scene.online(False, "cam-3")
    scene.look()
    scene.store.add_silence(lambda number: _silence(number, scene.now_s))
    assert scene.look(2000.0) == []
    scene.online(True, "cam-3")
    assert {m.occasion for m in scene.looks(20.0)} == {Occasion.RESOLVED}


def test_after_a_gap_a_finding_must_hold_anew(scene: Scene) -> None:
    scene.drift(*DIRTY)
    assert scene.looks(20.0) == []
    assert scene.look(3600.0) == [], "nobody looked for an hour"
    assert scene.looks(20.0) == []
    assert scene.look(10.0) != []


def test_a_rollout_that_waits_for_a_decision_is_alerted(scene: Scene) -> None:
    row = scene.store.rollout(1)
    started = step(row.state, Start(by="ana"), NOW_S)[0]
    scene.store.apply_step(started, previous=row.state, position=0, changes=[])
    by_operator = step(started, Pause(by="ana", reason="lunch"), NOW_S)[0]
    scene.store.apply_step(by_operator, previous=started, position=0, changes=[])
    assert scene.look() == []
    by_gate = msgspec.structs.replace(
        by_operator, pause_reason="Stage 1: nothing was observed.", revision=by_operator.revision + 1
    )
    scene.store.apply_step(by_gate, previous=by_operator, position=0, changes=[])
    assert _told(scene.look(10.0)) == [(name, "raised", "rollout:1:paused") for name in ("all", "am")]
    newer = scene.store.create_rollout(new_rollout, NOW_S).state
    aborted = msgspec.structs.replace(
        by_gate, status=Status.ABORTED, revision=by_gate.revision + 1, ended_s=scene.now_s
    )
    scene.store.apply_step(aborted, previous=by_gate, position=0, changes=[])
    assert {m.occasion for m in scene.looks(20.0)} == {Occasion.RESOLVED}
    assert newer.number == 2


def test_devices_in_quarantine_and_a_hub_in_trouble_are_alerted(scene: Scene) -> None:
    cause = Cause("quarantined", "Too much.")
    for device in ("cam-5", "cam-6"):
        scene.store.begin_quarantine(QuarantineRow(device, scene.now_s, scene.now_s + 600.0), cause)
    scene.look()
    scene.counts = HubCounts(100, 7, 500_000)
    scene.connected = False
    keys = {m.alert.matter.key for m in scene.looks(80.0)}
    assert keys == {"quarantine", "refused", "backlog", "broker"}
    assert scene.store.alert("quarantine").matter.devices == ("cam-5", "cam-6")
    assert scene.store.alert("broker").matter.severity is Severity.CRITICAL
    scene.connected = True
    ended = {m.alert.matter.key for m in scene.looks(700.0) if m.occasion is Occasion.RESOLVED}
    assert ended == {"quarantine", "refused", "broker"}, "the backlog is still there"


def _silence(number: int, now_s: float, device: str | None = None) -> Silence:
    return Silence(number, Match(kinds=("offline",)), device, now_s, now_s + 1e6, "ana", "a test")


def test_boards_that_are_too_hot_are_alerted_until_they_are_not(scene: Scene) -> None:
    def boards(throttled: int) -> None:
        board = BoardWindow(NOW_S, NOW_S + 60.0, 6, throttled)
        runs = ModelState("digits", 1, "ab" * 32, "onnx-fp32", "COMMITTED", None)
        report = StateReport(NOW_S, 1, (runs,), board=board)
        for device in ("cam-1", "cam-2"):
            say(scene.store, device, scene.now_s, report=report)

    boards(3)
    assert scene.look() == []
    told = scene.looks(RULES.throttled_hold_s + 20.0)
    assert {message.alert.matter.key for message in told} == {"throttled"}
    assert told[0].alert.matter.evidence[0] == "cam-1: throttled at 3 of 6 readings"
    boards(0)
    ended = scene.looks(RULES.clear_after_s + 20.0)
    assert {message.occasion for message in ended} == {Occasion.RESOLVED}
