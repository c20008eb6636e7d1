"""Revoked versions: brought to no device any more, with a real store, image repository and hub."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec
import pytest

from fleet.alerts.alert import Matter
from fleet.alerts.thresholds import Thresholds
from fleet.health import HealthPolicy
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.director import DirectorKeys
from fleet.protocol.errors import Conflict, NotFound, VersionRevoked
from fleet.protocol.manifest import encode_manifest, target_path
from fleet.protocol.messages import ModelState, StateReport
from fleet.protocol.records import DeploymentReport
from fleet.rollout.engine import create, step
from fleet.rollout.events import Abort, Promote, Resume, Start
from fleet.rollout.explanation.choices import choices
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.rollout import Happening, Kind, Rollout, Status
from hub.alerts.facts import FleetLook, HubCounts
from hub.registry.models import Models
from hub.rollouts.shell import Rollouts
from hub.rollouts.ways_out import ways_out
from hub.store.blobs import BlobFolder
from hub.store.rows import OrderChange, VersionRow, VersionStatus
from hub.store.sqlite import SqliteStore
from hub.store.state_rows import StateRules
from hub.trust.image_repository import ImageRepository
from hub.trust.keys import KeyFolder
from tests.support.agent_bundles import MODEL, build
from tests.support.command_line import muster_on
from tests.support.hub import HubProcess
from tests.support.rollout_shell import EVERYBODY, GATE
from tests.support.stores import DIGEST, add_device, incoming, join_running_hub, new_rollout, order, say
from tests.support.terminal import Terminal
from tests.support.tuf_client import download, updater

BUNDLES = {version: build(version) for version in (1, 2, 3)}
CAMS = [f"cam-{number}" for number in range(3)]
PLAN = Plan(
    stages=(msgspec.structs.replace(EVERYBODY, devices=2), EVERYBODY),
    gate=GATE,
)


def row(version: int, manifest_sha256: str, model: str = MODEL) -> VersionRow:
    return VersionRow(
        model=model,
        version=version,
        status=VersionStatus.REGISTERED,
        dataset="digits",
        estimator="onnx",
        hyperparameters={},
        seed=0,
        created_at_s=1.0,
        manifest_sha256=manifest_sha256,
        report={"variants": []},
    )


class Hub:
    """The parts of a hub that a revocation concerns, over real files."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder / "hub.db")
        self.keys = KeyFolder(folder / "keys")
        self.keys.create_missing()
        self.repository = ImageRepository(folder / "repository", self.keys)
        self.repository.create(DirectorKeys(keys=("ab" * 32,)), time.time())
        blobs = BlobFolder(folder / "blobs")
        self.models = Models(self.store, BlobFolder(folder / "datasets"), blobs, self.repository)
        self.rollouts = Rollouts(self.store, released=self.models.released, on_orders=lambda: None)
        for version, bundle in BUNDLES.items():
            assert self.store.add_version(row(version, blobs.put(encode_manifest(bundle.manifest))))
            self.models.release(MODEL, version)
        for device_id in CAMS:
            add_device(self.store, device_id)
        self._numbers = iter(range(1, 1000))

    def start(self, version: int) -> int:
        number = self.rollouts.create(MODEL, version, plan=PLAN, devices=None, seed=0).state.number
        self.rollouts.act(number, Start("ann"))
        return number

    def report(self, number: int, state: DeploymentState) -> None:
        """Let every device whose order forward is open report, and the hub hear it."""
        for part in self.store.rollout(number).state.deployments:
            if part.attempt.is_open:
                report = DeploymentReport(time.time(), part.attempt.deployment_id, MODEL, 1, state)
                self.store.add_records([incoming(part.device_id, next(self._numbers), report)])
        self.rollouts.advance()

    def bring(self, version: int) -> None:
        """Have every device run a version."""
        number = self.start(version)
        for _ in PLAN.stages:
            self.report(number, DeploymentState.SUCCEEDED)
            self.rollouts.act(number, Promote("ann", "enough"))
        assert self.status(number) is Status.SUCCEEDED

    def status(self, number: int) -> Status:
        return self.store.rollout(number).state.status


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Hub]:
    opened = Hub(tmp_path)
    yield opened
    opened.store.close()


def test_a_revoked_version_is_refused_when_written_at_the_start_and_as_a_way_back(parts: Hub) -> None:
    drawn_up = parts.rollouts.create(MODEL, 2, plan=PLAN, devices=None, seed=0).state.number
    revoked = parts.models.revoke(MODEL, 2, by="ann", reason="It leaks.")
    assert revoked.status is VersionStatus.REVOKED
    with pytest.raises(VersionRevoked, match="was revoked by ann: It leaks"):
        parts.rollouts.create(MODEL, 2, plan=PLAN, devices=None, seed=0)
    with pytest.raises(VersionRevoked):
        parts.rollouts.preview(MODEL, 2, plan=PLAN, devices=None, seed=0)
    with pytest.raises(VersionRevoked):
        parts.rollouts.act(drawn_up, Start("ann"))
    parts.rollouts.act(drawn_up, Abort("ann", "", roll_back=False))
    parts.start(3)
    with pytest.raises(VersionRevoked):
        parts.rollouts.roll_back(MODEL, 2, by="ann", reason="")
    with pytest.raises(VersionRevoked):
        parts.models.release(MODEL, 2)


@pytest.mark.parametrize("told", [True, False], ids=["told at once", "found with the next step"])
def test_a_rollout_under_way_is_held_and_goes_forward_no_more(parts: Hub, told: bool) -> None:
    number = parts.start(2)
    parts.models.revoke(MODEL, 2, by="ann", reason="It leaks.")
    if told:
        assert parts.rollouts.hold_revoked(MODEL, 2) == [number]
    parts.report(number, DeploymentState.SUCCEEDED)
    state = parts.store.rollout(number).state
    assert (state.status, state.stage_index) == (Status.PAUSED, 0)
    assert state.pause_reason == (
        f"{MODEL} version 2 was revoked by ann: It leaks. It is taken back from 2 devices on the way to it."
    )
    for word in (Resume("ann"), Promote("ann", "all the same")):
        with pytest.raises(VersionRevoked):
            parts.rollouts.act(number, word)
    assert parts.store.desired_versions(MODEL) == {}, "they ran nothing before"
    assert {parts.store.desired_of([cam])[cam].sequence for cam in CAMS} == {0, 2}
    parts.rollouts.act(number, Abort("ann", "revoked", roll_back=True))


def test_what_is_on_its_way_is_withdrawn_and_what_runs_it_goes_on(parts: Hub) -> None:
    parts.bring(1)
    number = parts.start(2)
    done, going = [p for p in parts.store.rollout(number).state.deployments if p.stage == 0]
    for part, state in ((done, DeploymentState.SUCCEEDED), (going, DeploymentState.TRIAL)):
        report = DeploymentReport(time.time(), part.attempt.deployment_id, MODEL, 2, state)
        parts.store.add_records([incoming(part.device_id, next(parts._numbers), report)])
    parts.rollouts.advance()
    before = parts.store.desired_of(CAMS)
    parts.models.revoke(MODEL, 2, by="ann", reason="It leaks.")
    parts.rollouts.hold_revoked(MODEL, 2)
    wanted = parts.store.desired_versions(MODEL)
    assert [wanted[p.device_id] for p in (done, going)] == [2, 1]
    after = parts.store.desired_of(CAMS)
    higher = {cam for cam in CAMS if after[cam].sequence > before[cam].sequence}
    assert higher == {going.device_id}
    assert parts.status(number) is Status.PAUSED


def test_who_would_go_back_to_a_revoked_version_goes_to_the_proven_one_before_it(parts: Hub) -> None:
    parts.bring(1)
    parts.bring(2)
    number = parts.start(3)
    parts.report(number, DeploymentState.SUCCEEDED)
    going = {part.device_id for part in parts.store.rollout(number).state.deployments if part.stage == 0}
    parts.models.revoke(MODEL, 2, by="ann", reason="It leaks.")
    parts.rollouts.act(number, Abort("ann", "worse", roll_back=True))
    desired = parts.store.desired_versions(MODEL)
    assert {desired[device_id] for device_id in going} == {1}
    state = parts.store.rollout(number).state
    assert {part.previous_version for part in state.deployments if part.restore} == {1}
    assert state.status is Status.ROLLING_BACK
    assert state.last_move is not None and state.last_move.kind is Happening.ROLLING_BACK
    why = f"{MODEL} version 2 was revoked by ann: It leaks."
    told = f"Devices go back to version 1 in place of version 2: {why}"
    assert [entry.text for entry in state.history if entry.kind is Happening.DETOURED] == [told]
    for part in state.deployments:
        if part.restore is not None:
            back = DeploymentReport(
                time.time(), part.restore.deployment_id, MODEL, 1, DeploymentState.SUCCEEDED
            )
            parts.store.add_records([incoming(part.device_id, next(parts._numbers), back)])
    parts.rollouts.advance()
    assert parts.status(number) is Status.ROLLED_BACK


def test_nobody_is_led_back_to_a_revoked_version(parts: Hub) -> None:
    first = parts.start(1)
    parts.report(first, DeploymentState.SUCCEEDED)
    parts.rollouts.act(first, Abort("ann", "enough", roll_back=False))
    parts.rollouts.advance()
    ran = parts.store.desired_versions(MODEL)
    second = parts.start(2)
    parts.report(second, DeploymentState.SUCCEEDED)
    brought = {part.device_id for part in parts.store.rollout(second).state.deployments if part.stage == 0}
    parts.models.revoke(MODEL, 1, by="ann", reason="It leaks.")
    parts.rollouts.act(second, Abort("ann", "worse", roll_back=True))
    parts.rollouts.advance()
    wanted = parts.store.desired_versions(MODEL)
    assert {wanted.get(device_id) for device_id in brought & ran.keys()} == {2}
    refused = [
        p for p in parts.store.rollout(second).state.deployments if p.device_id in brought & ran.keys()
    ]
    for part in refused:
        assert part.restore is not None
        assert part.restore.state is DeploymentState.REJECTED
        assert part.restore.cause is not None
        assert part.restore.cause.code == "version_revoked"
        assert "No older version is proven that the device can run." in part.restore.cause.detail
    state = parts.store.rollout(second).state
    assert state.status is Status.FAILED
    assert state.cause is not None
    assert "was revoked by ann: It leaks." in state.cause.detail
    assert "`muster rollback digits --to VERSION --target …`" in state.cause.detail
    (helps,) = (one.command for one in choices(state) if "--to VERSION" in one.command)
    assert helps.startswith(f"muster rollback {MODEL} --to VERSION --target 'id in [")
    assert all(device_id in helps for device_id in brought & ran.keys())


def test_what_would_become_of_devices_whose_version_is_revoked_is_said_before(parts: Hub) -> None:
    parts.bring(1)
    parts.bring(2)
    parts.models.revoke(MODEL, 2, by="ann", reason="It leaks.")
    told = "3 devices run version 2, which was revoked: if this is taken back, they go to version 1."
    assert told in parts.rollouts.preview(MODEL, 3, plan=PLAN, devices=None, seed=0).warnings
    state = parts.rollouts.create(MODEL, 3, plan=PLAN, devices=None, seed=0).state
    assert told in [warned.text for warned in state.warned]
    parts.models.revoke(MODEL, 1, by="ann", reason="It leaks too.")
    told = parts.rollouts.preview(MODEL, 3, plan=PLAN, devices=None, seed=0).warnings[-1]
    assert told == (
        "3 devices run version 2, which was revoked: they cannot be taken back, because no older version is"
        " proven that would run there."
    )


def test_a_device_finds_the_version_among_the_targets_no_more(parts: Hub, tmp_path: Path) -> None:
    path, first_root = target_path(MODEL, 2), parts.repository.first_root()
    device = tmp_path / "device"
    assert download(updater(device, first_root, parts.repository.read), path) == encode_manifest(
        BUNDLES[2].manifest
    )
    parts.models.revoke(MODEL, 2, by="ann", reason="It leaks.")
    client = updater(device, first_root, parts.repository.read)
    assert client.get_targetinfo(path) is None
    assert download(client, target_path(MODEL, 1)) == encode_manifest(BUNDLES[1].manifest)


def test_a_revocation_that_was_interrupted_is_completed_and_keeps_its_reason(
    parts: Hub, tmp_path: Path
) -> None:
    key, away = tmp_path / "keys" / "targets.pem", tmp_path / "elsewhere.pem"
    key.rename(away)
    with pytest.raises(NotFound):
        parts.models.revoke(MODEL, 2, by="ann", reason="It leaks.")
    with pytest.raises(VersionRevoked):
        parts.models.released(MODEL, 2)
    away.rename(key)
    said = parts.models.revoke(MODEL, 2, by="bob", reason="again").revoked
    assert said is not None
    assert (said.by, said.reason) == ("ann", "It leaks.")
    client = updater(tmp_path / "device", parts.repository.first_root(), parts.repository.read)
    assert client.get_targetinfo(target_path(MODEL, 2)) is None


def test_a_version_that_never_became_usable_is_not_revoked(parts: Hub) -> None:
    assert parts.store.add_version(msgspec.structs.replace(row(4, DIGEST), status=VersionStatus.FAILED))
    with pytest.raises(Conflict):
        parts.models.revoke(MODEL, 4, by="ann", reason="It leaks.")


def test_operators_are_told_who_runs_it_and_how_to_go_back(
    hub: HubProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(SqliteStore(hub.home / "hub.db")) as store:
        assert store.add_version(row(1, DIGEST, "revocable"))

    muster = muster_on(hub, monkeypatch, capsys)
    assert "--reason" in muster("model", "revoke", "revocable", "1")[1]
    told = muster("model", "revoke", "revocable", "1", "--reason", "It leaks.")[0]
    assert "REVOKED" in told
    assert "No device is to run it." in told
    assert "It leaks." in muster("model", "show", "revocable", "1")[0]
    assert "REVOKED" in muster("model", "list", "--model", "revocable")[0]
    for command in (("model", "release"), ("rollout", "create")):
        assert "[version_revoked]" in muster(*command, "revocable", "1")[1]


def test_at_a_terminal_it_is_asked_and_said_who_runs_it(
    hub: HubProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    who = [f"asked-{number}" for number in range(3)]
    with closing(SqliteStore(hub.home / "hub.db")) as store:
        assert store.add_version(row(1, DIGEST, "asked"))
        for device_id in who:
            join_running_hub(store, device_id, "ops", time.time())
        drawn_up = store.create_rollout(partial(new_rollout, model="asked"), time.time()).state
        changes = [OrderChange(device_id, "asked", order(model="asked")) for device_id in who]
        store.apply_step(drawn_up, previous=drawn_up, position=0, changes=changes)
    words = ("model", "revoke", "asked", "1", "--reason", "It leaks.")
    terminal = Terminal(hub, hub.client, *words)
    terminal.shows("Revoke it for good? [y/N]")
    terminal.types("n")
    code, shown = terminal.ended()
    assert code == 1
    assert "Devices that run it or are to: 3, asked-0, asked-1, asked-2." in shown
    assert "Nobody will be brought to it any more" in shown
    assert hub.client.get("/models/asked/versions/1")["status"] == "REGISTERED"
    monkeypatch.setattr("hub.cli.models.asks", lambda: True)
    told = muster_on(hub, monkeypatch, capsys)(*words, "--yes")[0]
    assert hub.client.get("/models/asked/versions/1")["status"] == "REVOKED"
    assert "There is no older version that is released" in told


def test_it_is_said_who_goes_back_and_how_what_is_held_is_ended(
    hub: HubProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    who = dict.fromkeys(["going-0", "going-1"])
    plan = Plan(stages=(EVERYBODY,), gate=GATE)
    with closing(SqliteStore(hub.home / "hub.db")) as store:
        assert store.add_version(row(1, DIGEST, "going"))
        for device_id in who:
            join_running_hub(store, device_id, "ops", time.time())

        def started(number: int) -> Rollout:
            drawn_up = create(
                number=number,
                kind=Kind.UPDATE,
                model="going",
                version=1,
                manifest_sha256=DIGEST,
                plan=plan,
                seed=0,
                devices=who,
                now_s=time.time(),
            )
            return step(drawn_up, Start("ann"), time.time())[0]

        number = store.create_rollout(started, time.time()).state.number
    told = muster_on(hub, monkeypatch, capsys)("model", "revoke", "going", "1", "--reason", "It leaks.")[0]
    assert f"Rollout {number} is held." in told
    assert "2 devices on their way to it go back." in told
    assert "No device is to run it." in told
    assert "What is held is ended so:" in told
    assert f"muster rollout abort {number} --rollback" in told
    assert "They go on" not in told


def brought(parts: Hub, version: int, *device_ids: str) -> int:
    """Have some devices run a version; the rollout goes on."""
    plan = Plan(stages=(EVERYBODY,), gate=GATE)
    number = parts.rollouts.create(MODEL, version, plan=plan, devices=device_ids, seed=0).state.number
    parts.rollouts.act(number, Start("ann"))
    parts.report(number, DeploymentState.SUCCEEDED)
    return number


def revoked(parts: Hub, version: int) -> list[str]:
    """Revoke a version and return the commands that lead away from it."""
    parts.models.revoke(MODEL, version, by="ann", reason="It leaks.")
    held = [parts.store.rollout(number).state for number in parts.rollouts.hold_revoked(MODEL, version)]
    desired = parts.store.desired_versions(MODEL)
    running = {device_id: runs for device_id, runs in desired.items() if runs == version}
    return ways_out(MODEL, version, held, desired, parts.rollouts.way_back(MODEL, running))


def test_the_way_out_of_a_version_takes_no_other_version_from_anybody(parts: Hub) -> None:
    parts.bring(1)
    parts.rollouts.act(brought(parts, 2, "cam-0"), Promote("ann", "it is good"))
    number = brought(parts, 3, "cam-1")
    assert parts.rollouts.retreat(MODEL, 1).leaves == {3: 1, 2: 1}, "who runs 2 would go as well"
    assert revoked(parts, 3) == [f"muster rollout abort {number} --rollback --reason 'version 3 was revoked'"]
    parts.rollouts.act(number, Abort("ann", "revoked", roll_back=True))
    assert parts.store.desired_versions(MODEL) == {"cam-0": 2, "cam-1": 1, "cam-2": 1}


def test_what_is_held_is_ended_before_a_rollback_that_it_would_be_in_the_way_of(parts: Hub) -> None:
    parts.bring(1)
    parts.rollouts.act(brought(parts, 3, "cam-0"), Promote("ann", "it is good"))
    parts.rollouts.act(brought(parts, 2, "cam-1"), Promote("ann", "it is good"))
    number = brought(parts, 2, "cam-2")
    first, second = revoked(parts, 2)
    assert first.startswith(f"muster rollout abort {number} --rollback ")
    assert second.startswith(f"muster rollback {MODEL} --to 1 --target ")


def test_devices_that_run_a_revoked_version_are_an_alert(parts: Hub) -> None:
    parts.store.adopt_rules(StateRules(HealthPolicy(silence_limit_s=1e9), ()))
    parts.bring(1)
    going = [part for part in parts.store.rollout(parts.start(2)).state.deployments if part.stage == 0]
    assert len(going) == 2
    for device_id in CAMS:
        version = 2 if device_id in {part.device_id for part in going} else 3
        runs = ModelState(MODEL, version, DIGEST, "onnx-fp32", "COMMITTED", None)
        say(parts.store, device_id, time.time(), report=StateReport(time.time(), 1, (runs,)))
    look = FleetLook(
        parts.store, Thresholds(), broker_connected=lambda: True, counts=lambda: HubCounts(0, 0, 0)
    )

    def found() -> list[Matter]:
        while parts.store.refresh_states(now_s=time.time()):
            pass
        findings = look.findings(time.time())
        return [one.matter for one in findings if one.matter.kind == "revoked_version"]

    assert found() == []
    parts.models.revoke(MODEL, 2, by="ann", reason="It leaks.")
    (matter,) = found()
    assert matter.sentence == f"2 devices run {MODEL} version 2, which was revoked."
    assert matter.evidence == ("ann revoked it: It leaks.",)
    assert matter.command.startswith(f"muster rollback {MODEL} --to 1 --target ")
