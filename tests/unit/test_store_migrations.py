"""A database of an earlier release keeps its rows when a later one opens it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import sqlite_utils

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.protocol.messages import ModelState, StateReport, encode
from fleet.protocol.records import Incident, RecordBody, TelemetryWindow, packed
from fleet.rollout.claims import claims_of
from fleet.rollout.engine import step
from fleet.rollout.events import (
    Abort,
    DeploymentReported,
    DeploymentsReported,
    EvidenceObserved,
    Promote,
    Ticked,
)
from fleet.rollout.gates.evidence import Arm, Evidence, Tally, gathered
from fleet.rollout.plans.plan import Metric, MetricGate
from fleet.rollout.state.rollout import Rollout, Status
from hub.store.rows import Action, VersionRow, VersionStatus
from hub.store.sqlite import SqliteStore
from hub.store.sqlite.migrations import migrations
from hub.store.sqlite.packs import INSERT, rows_of
from tests.support.rollout_rules import check_counters
from tests.support.rollouts import LABELS, NEW, OLD, Campaign, plan
from tests.support.rollouts import window as campaign_window
from tests.support.stores import (
    DIGEST,
    STREAM,
    add_device,
    incident,
    incoming,
    records_after,
    report,
    say,
    window,
)

ROLLOUT = Path(__file__).parents[1] / "vectors" / "rollout_in_one_value.json"
"""As a hub stored it before m013: two devices are on their way back, the third was never reached."""
WITH_EVIDENCE = Path(__file__).parents[1] / "vectors" / "rollout_with_its_evidence.json"
"""A summary as a hub stored it before m020: what `_judged` returns."""


def test_versions_survive_that_their_dataset_may_be_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        migrations.apply(
            sqlite_utils.Database(connection, strict=True), stop_before="m002_versions_of_datasets_elsewhere"
        )
        connection.execute("INSERT INTO datasets VALUES ('digits', 'ab', 1, 1, '[64]', '[]', 1.0)")
        connection.execute(
            "INSERT INTO versions"
            " (model, version, status, dataset, estimator, hyperparameters, seed, created_at_s)"
            " VALUES ('digits', 1, 'FAILED', 'digits', 'mlp', '{}', 7, 2.0)"
        )
    old = VersionRow("digits", 1, VersionStatus.FAILED, "digits", "mlp", {}, 7, 2.0)
    new = VersionRow("digits", 2, VersionStatus.REGISTERED, "elsewhere", "onnx", {}, 0, 3.0)
    for _ in range(2):  # the second time there is nothing left to do
        with closing(SqliteStore(path)) as store:
            store.add_version(new)
            assert store.versions() == [old, new]


def test_the_last_deployments_are_known_from_the_records(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    failed = msgspec.structs.replace(report(DeploymentState.FAILED), cause=Cause("no_space", "No space."))
    bodies: list[RecordBody] = [
        report(),
        failed,
        report(DeploymentState.SUCCEEDED, model="letters"),
        incident(),
    ]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrations.apply(sqlite_utils.Database(connection, strict=True), stop_before="m008_states")
        records = [incoming("cam-1", number, body) for number, body in enumerate(bodies)]
        connection.executemany(INSERT, rows_of(records))
    with closing(SqliteStore(path)) as store:
        add_device(store, "cam-1")
        models = [ModelState(name, 1, DIGEST, "onnx", "COMMITTED", None) for name in ("digits", "letters")]
        say(store, "cam-1", 60.0, report=StateReport(60.0, 0, tuple(models)))
        [facts] = store.facts(["cam-1"])
    assert [(model.deployment, model.cause) for model in facts.models] == [
        (DeploymentState.FAILED, failed.cause),
        (DeploymentState.SUCCEEDED, None),
    ]


def test_records_keep_their_places_and_stay_known_when_they_are_packed(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    bodies: list[RecordBody] = [window(), report(), window(), incident()]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrations.apply(sqlite_utils.Database(connection, strict=True), stop_before="m006_packed_records")
        for number, body in enumerate(bodies):
            connection.execute(
                "INSERT INTO records (position, device_id, stream, number, received_at_s, model, kind, body)"
                " VALUES (?, 'cam-1', ?, ?, 20.0, ?, ?, ?)",
                (
                    10 + number,
                    STREAM,
                    number,
                    None if isinstance(body, Incident) else "digits",
                    ("window", "deployment", "window", "incident")[number],
                    encode(packed(body)),
                ),
            )
        connection.execute(
            "INSERT INTO dead_letters (topic, received_at_s, cause, payload)"
            ' VALUES (\'t\', 1.0, \'{"code": "invalid_message", "detail": "No."}\', x\'00\')'
        )
    with closing(SqliteStore(path)) as store:
        records = records_after(store, 0)
        assert [record.body for record in records] == bodies
        assert [record.position for record in records] == [10, 11, 12, 13]
        assert [record.body for record in store.timeline("cam-1")] == [bodies[3], bodies[1]]
        again = [incoming("cam-1", number, body) for number, body in enumerate(bodies)]
        assert store.add_records([*again, incoming("cam-1", 4, window())]) == 1
        assert store.count_dead_letters() == len(store.dead_letters()) == 1


def test_rollouts_in_one_value_are_taken_apart_and_go_on(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    state = json.loads(ROLLOUT.read_text())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrations.apply(sqlite_utils.Database(connection, strict=True), stop_before="m013_rollout_devices")
        connection.execute(
            "INSERT INTO rollouts (number, model, status, is_open, revision, position, created_at_s, state)"
            " VALUES (7, 'digits', 'ROLLING_BACK', 1, 4, 9, 1000.0, ?)",
            [json.dumps(state)],
        )
    with closing(SqliteStore(path)) as store:
        row = store.rollout(7)
        assert row.position == 9
        assert [entry.text for entry in store.decisions(7)] == [entry["text"] for entry in state["history"]]
        assert row.state.decisions == len(state["history"])
        ids = [part["device_id"] for part in state["deployments"]["pages"][0]]
        assert [part.device_id for part in row.state.deployments] == ids
        check_counters(row.state)
        held = {claim.device_id for claim in claims_of(row.state)}
        assert store.claimed_by("digits", ids) == dict.fromkeys(held, 7)
        assert set() < held < set(ids), "the last one was never ordered"
        last = row.state.deployments[2]
        assert (last.previous_version, last.attempt.ordered_s, last.restore) == (None, None, None)
        done = DeploymentsReported(
            tuple(
                DeploymentReported(ids[index], f"r7-{index}b", DeploymentState.SUCCEEDED, 1004.0)
                for index in range(2)
            )
        )
        ended = step(row.state, done, 1004.0)[0]
        assert ended.status is Status.ROLLED_BACK
        timed_out = step(row.state, Ticked(), 1103.0)[0]
        assert timed_out.status is Status.FAILED
        store.apply_step(ended, previous=row.state, position=9, changes=[])
        assert store.rollout(7).state == ended
        assert store.claimed_by("digits", ids) == {}


def test_ways_back_of_before_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    campaign = Campaign(plan("all"), devices={"cam-0": 1, "cam-1": 1, "cam-2": None, "cam-3": 1})
    campaign.do(Abort("ann", "wrong", roll_back=True))
    ends = {
        "cam-0": DeploymentState.SUCCEEDED,
        "cam-1": DeploymentState.FAILED,
        "cam-2": DeploymentState.REMOVED,
    }
    for part in campaign.cohort(0):
        if part.device_id in ends:
            campaign.report(part, ends[part.device_id], back=True)
    state = campaign.rollout
    with closing(SqliteStore(path)) as store:
        store.create_rollout(lambda _number: state, 1.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM _sqlite_migrations WHERE name = 'm019_ways_back_counted'")
        removed = "UPDATE rollouts SET state = json_remove(state, '$.restored', '$.unrestored')"
        connection.execute(removed)
    with closing(SqliteStore(path)) as store:
        kept = store.rollout(state.number).state
    assert (kept.open_restores, kept.restored, kept.unrestored) == (1, 2, 1)
    assert kept == state


def test_devices_of_before_are_numbered_and_so_is_what_changes(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrations.apply(sqlite_utils.Database(connection, strict=True), stop_before="m021_device_changes")
        for name in ("cam-2", "cam-1"):
            connection.execute(
                "INSERT INTO devices (device_id, password_hash, attributes, capabilities, enrolled_at_s)"
                " VALUES (?, 'x', '{}', '{}', 1.0)",
                [name],
            )
    with closing(SqliteStore(path)) as store:
        first, second = store.device_changes()
        assert (first.device_id, second.device_id) == ("cam-2", "cam-1")
        assert 0 < first.number < second.number
        store.tag("cam-2", add=["lab"], remove=[], action=Action(1.0, "ann", "Tagged."))
        assert [change.device_id for change in store.device_changes(after=second.number)] == ["cam-2"]


def test_evidence_of_before_is_kept_apart_to_the_last_number(tmp_path: Path) -> None:
    path, expected = tmp_path / "hub.db", _judged()
    with closing(SqliteStore(path)) as store:
        store.create_rollout(lambda _number: expected, 1.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE rollout_evidence")
        connection.execute("DELETE FROM _sqlite_migrations WHERE name = 'm020_evidence_apart'")
        connection.execute("UPDATE rollouts SET state = ?", [WITH_EVIDENCE.read_text()])
    with closing(SqliteStore(path)) as store:
        kept = store.rollout(expected.number).state
        assert [one.evidence for one in kept.stages] == [one.evidence for one in expected.stages]
        assert len(kept.stages[-1].evidence.spans) == 3
        assert kept.verdict is not None
        assert expected.verdict is not None
        for one, other in zip(kept.verdict.metrics, expected.verdict.metrics, strict=True):
            assert (one.canary, one.control) == (other.canary, other.control)
        after = step(kept, Promote("ana", "It is known to be well."), 2000.0)[0]
        store.apply_step(after, previous=kept, position=0, changes=[])
    with closing(SqliteStore(path)) as store:
        assert store.rollout(expected.number).state == after


def _judged() -> Rollout:
    """Return a rollout of two metrics in its second stage, with evidence of classes, groups and spans."""
    latency = MetricGate(metric=Metric.LATENCY, quantile=0.9, ratio=1.5, budget_us=60_000.0)
    campaign = Campaign(plan(2, 4, "all", metrics=(LABELS, latency)))
    for stage in range(2):
        campaign.do(EvidenceObserved(_said(campaign)))  # before there is a canary of the stage, and after
        campaign.succeed(stage)
        campaign.do(EvidenceObserved(_said(campaign)))
        if stage == 0:
            campaign.do(Promote("ana", "It is known to be well.", 1))
    counted = Tally.of(7, 190), Tally.of_cells({58: 100, 70: 90})
    by_class = {name: Arm(3, 5, 1, counted, noised=2) for name in ("board=pi4", "board=pi5")}
    sides = gathered(by_class, 2), gathered({"board=pi4": Arm(1, 1, 0, counted)}, 2)
    of_classes = Evidence(*sides, groups={group: Evidence(*sides) for group in (0, 5)}).during(3)
    past, now = campaign.rollout.stages
    now = msgspec.structs.replace(now, evidence=now.evidence.plus(of_classes))
    return msgspec.structs.replace(campaign.rollout, stages=(past, now))


def _said(campaign: Campaign) -> tuple[tuple[str, TelemetryWindow], ...]:
    """Return what every device says of the next two seconds."""
    started_s = campaign.now_s
    campaign.now_s += 2.0
    parts = campaign.rollout.deployments
    versions = [NEW if one.attempt.state is DeploymentState.SUCCEEDED else OLD for one in parts]
    return tuple(
        (one.device_id, campaign_window(version, started_s, latency={60: 150, 63: 50}))
        for one, version in zip(parts, versions, strict=True)
    )
