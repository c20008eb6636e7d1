"""A fleet for the health benchmark: devices as a hub knows them after a while, written through its store.

Of all devices 3 % are offline, 3 % failed their last deployment, 2 % are updating, and 0.2 % alarm for drift,
most of them with one camera. A fifth run a second model. What is written goes in as messages and orders do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from fleet.drift.alarms import AlarmState, FeatureDrift
from fleet.protocol.assignment import ModelOrder
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.protocol.heads import read_head
from fleet.protocol.messages import Capabilities, Hello, ModelState, Record, StateReport, encode
from fleet.protocol.records import DeploymentReport, RecordBody, TelemetryWindow, packed
from fleet.rollout.engine import create
from fleet.rollout.plans.plan import default_plan
from fleet.rollout.state.rollout import Kind
from hub.broker.accounts import hash_password
from hub.store.intake_rows import Intake, Said
from hub.store.protocols import Store
from hub.store.rows import DriftRow, IncomingRecord, NewDevice, OrderChange
from hub.store.telemetry_rows import TelemetryStep

DIGEST = "ab" * 32
MODEL, OTHER_MODEL = "digits", "letters"
SITES, BOARDS, CAMERAS = 40, 6, 12
BATCH = 1000
FEATURES = 16


class FleetMember:
    """One device of the fleet.

    Args:
        number: Of the device.
        rng: Draws what it is and how it is.
    """

    def __init__(self, number: int, rng: random.Random) -> None:
        self.id = f"cam-{number:06d}"
        self.attributes = {
            "site": f"site-{rng.randrange(SITES)}",
            "camera": f"camera-{rng.randrange(CAMERAS)}",
        }
        self.capabilities = Capabilities(
            agent_version="0.1.0",
            architecture="aarch64" if number % 4 else "x86_64",
            runtimes={"onnxruntime": "1.31.1", "litert": "2.1.0"},
            memory_bytes=2**30,
            free_bytes=2**33,
            hardware=f"Board Model {rng.randrange(BOARDS)} Rev 1.2",
        )
        fate = rng.random()
        self.online = fate >= 0.03
        self.failed = 0.03 <= fate < 0.06
        self.updating = 0.06 <= fate < 0.08
        self.models = (MODEL, OTHER_MODEL) if rng.random() < 0.2 else (MODEL,)
        self.drifting = rng.random() < (0.02 if self.attributes["camera"] == "camera-3" else 0.0004)

    def report(self, at_s: float, version: int | None = None) -> StateReport:
        """Return a heartbeat."""
        version = version or (2 if self.updating else 3)
        models = tuple(
            ModelState(model, version, DIGEST, "onnx-int8", "COMMITTED", "r1-0f") for model in self.models
        )
        return StateReport(at_s, 1, models)

    def bodies(self) -> Iterator[RecordBody]:
        """Yield its records: how its deployments ended."""
        for model in self.models:
            state = DeploymentState.DOWNLOADING if self.updating else DeploymentState.SUCCEEDED
            cause = Cause("no_space", "There is no space for the version.") if self.failed else None
            state = DeploymentState.FAILED if self.failed else state
            yield DeploymentReport(10.0, "r1-0f", model, 3, state, cause)


def members(count: int, seed: int) -> list[FleetMember]:
    """Return the devices of a fleet."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    return [FleetMember(number, rng) for number in range(count)]


def write_fleet(store: Store, fleet: list[FleetMember]) -> None:
    """Enrol the devices, order versions, and take in what they say."""
    password_hash = hash_password("of every device")
    for member in fleet:
        store.add_enrolment_token(member.id, created_at_s=0.0, expires_at_s=2e9)
        joining = NewDevice(member.id, password_hash, member.attributes, member.capabilities)
        store.enrol(joining, token_sha256=member.id, now_s=1.0)
    _order(store, fleet)
    for start in range(0, len(fleet), BATCH):
        batch = fleet[start : start + BATCH]
        now_s = time.time()
        records = [
            _incoming(member, number, body, now_s)
            for member in batch
            for number, body in enumerate(member.bodies())
        ]
        said = {
            member.id: Said(member.online, Hello(1, 1, member.capabilities), member.report(now_s))
            for member in batch
        }
        store.take_in(Intake(now_s, records, devices=said))
    totals = {(member.id, model, 3): _total(model) for member in fleet for model in member.models}
    alarms = [_drift(member) for member in fleet if member.drifting]
    store.save_telemetry(TelemetryStep(0, store.last_position(), time.time(), totals, drift=alarms))


def heartbeats(fleet: list[FleetMember], version: int | None = None) -> Intake:
    """Return a batch of heartbeats."""
    now_s = time.time()
    said = {member.id: Said(member.online, None, member.report(now_s, version)) for member in fleet}
    return Intake(now_s, devices=said)


def _order(store: Store, fleet: list[FleetMember]) -> None:
    plan, devices = default_plan(2), {member.id: 2 for member in fleet[:2]}
    rollout = store.create_rollout(
        lambda number: create(
            number=number,
            kind=Kind.UPDATE,
            model=MODEL,
            version=3,
            manifest_sha256=DIGEST,
            plan=plan,
            seed=0,
            devices=devices,
            now_s=1.0,
        ),
        1.0,
    ).state
    changes = [
        OrderChange(member.id, model, ModelOrder(model, 3, bytes.fromhex(DIGEST), "onnx-int8", "r1-0f"))
        for member in fleet
        for model in member.models
    ]
    store.apply_step(rollout, previous=rollout, position=0, changes=changes)


def _incoming(member: FleetMember, number: int, body: RecordBody, now_s: float) -> IncomingRecord:
    data = encode(Record("0123456789abcdef", number, packed(body)))
    return IncomingRecord(member.id, now_s, read_head(data), data)


def _total(model: str) -> bytes:
    window = TelemetryWindow(
        10.0, 70.0, model, 3, DIGEST, "onnx-int8", predictions=600, errors=1, latency={20: 600}
    )
    return encode(packed(window))


def _drift(member: FleetMember) -> DriftRow:
    look = FeatureDrift("input.contrast", 300, True, 4.0, 9.0, split="below 0.41", share=0.61, expected=0.05)
    alarm = AlarmState(looks=3, raised=("input.contrast",))
    return DriftRow(member.id, MODEL, 3, alarm=alarm, last_look=(look,))
