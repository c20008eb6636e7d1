"""What the tests of stores and services share: rows that are valid, and short to write."""

from __future__ import annotations

from fleet.protocol.assignment import ModelOrder
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.protocol.heads import read_head, read_record
from fleet.protocol.messages import PROTOCOL_VERSION, Capabilities, Hello, Record, StateReport, encode
from fleet.protocol.records import DeploymentReport, Incident, RecordBody, TelemetryWindow, packed
from fleet.rollout.engine import create
from fleet.rollout.plans.plan import default_plan
from fleet.rollout.state.rollout import Kind, Rollout
from hub.broker.accounts import hash_password, new_password
from hub.store.intake_rows import Intake, Said
from hub.store.protocols import Store
from hub.store.rows import DatasetRow, IncomingRecord, NewDevice, StoredRecord

DIGEST = "ab" * 32
STREAM = "0123456789abcdef"
CAPABILITIES = Capabilities(
    agent_version="0.1.0",
    architecture="x86_64",
    runtimes={"onnxruntime": "1.31.1"},
    memory_bytes=2**30,
    free_bytes=2**33,
)


def records_after(
    store: Store, position: int, *, model: str | None = None, limit: int = 1000
) -> list[StoredRecord]:
    """Return stored records with their bodies, those of some positions after one."""
    return [
        StoredRecord(raw.position, raw.device_id, raw.received_at_s, read_record(raw.data).body)
        for raw in store.raw_records_after(position, model=model, limit=limit)
    ]


def add_device(store: Store, device_id: str) -> None:
    """Enrol a device with a token of its own."""
    token = f"token of {device_id}"
    store.add_enrolment_token(token, created_at_s=0.0, expires_at_s=100.0)
    store.enrol(new_device(device_id), token_sha256=token, now_s=50.0)


def join_running_hub(store: Store, device_id: str, site: str, now_s: float) -> None:
    """Enrol a device of a hub that runs: its password's hash is one that the broker's accounts can hold."""
    store.add_enrolment_token(device_id, created_at_s=now_s, expires_at_s=now_s + 60.0)
    device = NewDevice(device_id, hash_password(new_password()), {"site": site}, CAPABILITIES)
    store.enrol(device, token_sha256=device_id, now_s=now_s)


def say(
    store: Store,
    device_id: str,
    now_s: float,
    *,
    online: bool = True,
    hello: Hello | None = None,
    report: StateReport | None = None,
) -> None:
    """Let the store take in what a device says of itself."""
    store.take_in(Intake(now_s, devices={device_id: Said(online, hello, report)}))


def greeting(capabilities: Capabilities = CAPABILITIES, sequence: int = 0) -> Hello:
    """Return a device's announcement."""
    return Hello(PROTOCOL_VERSION, sequence, capabilities)


def new_device(device_id: str) -> NewDevice:
    """Return a device that wants to enrol."""
    return NewDevice(device_id, f"hash of {device_id}", {"site": "lyon"}, CAPABILITIES)


def dataset_row(name: str = "digits", sha256: str = DIGEST) -> DatasetRow:
    """Return a dataset's row."""
    return DatasetRow(name, sha256, 1000, 100, (64,), ("zero", "one"), 1.0)


def window(*, model: str = "digits", version: int = 1, predictions: int = 10) -> TelemetryWindow:
    """Return a telemetry window."""
    return TelemetryWindow(
        started_at_s=10.0,
        ended_at_s=11.0,
        model=model,
        version=version,
        manifest_sha256=DIGEST,
        variant="onnx-fp32",
        predictions=predictions,
        latency={4: predictions},
    )


def report(state: DeploymentState = DeploymentState.TRIAL, *, model: str = "digits") -> DeploymentReport:
    """Return a deployment report."""
    return DeploymentReport(at_s=10.0, deployment_id="r1-0f", model=model, version=1, state=state)


def incident() -> Incident:
    """Return an incident."""
    return Incident(at_s=10.0, cause=Cause("no_space", "The disk is full."))


def incoming(device_id: str, number: int, body: RecordBody, stream: str = STREAM) -> IncomingRecord:
    """Return a record on its way into the store."""
    data = encode(Record(stream, number, packed(body)))
    return IncomingRecord(device_id, 20.0, read_head(data), data)


def order(version: int = 1, *, model: str = "digits", deployment_id: str = "r1-0f") -> ModelOrder:
    """Return an order."""
    return ModelOrder(model, version, bytes.fromhex(DIGEST), "onnx-fp32", deployment_id)


def new_rollout(number: int, *, model: str = "digits") -> Rollout:
    """Return a rollout that was created and not started."""
    return create(
        number=number,
        kind=Kind.UPDATE,
        model=model,
        version=2,
        manifest_sha256=DIGEST,
        plan=default_plan(2),
        seed=0,
        devices={"cam-1": 1, "cam-2": None},
        now_s=1.0,
    )
