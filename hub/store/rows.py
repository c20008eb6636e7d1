"""What the store keeps and gives back, as plain values. Times are Unix seconds."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from fleet.drift.alarms import AlarmState, FeatureDrift
from fleet.protocol.assignment import ModelOrder
from fleet.protocol.errors import Cause
from fleet.protocol.heads import RecordHead
from fleet.protocol.messages import Capabilities, StateReport
from fleet.protocol.records import Measurement, RecordBody, ShadowReport, TelemetryWindow
from fleet.protocol.wishes import NO_WISHES, LogLevel, Wishes
from fleet.rollout.state.rollout import Rollout, Status, Summary


class Role(StrEnum):
    """What a person's API token allows: each role includes the ones before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class ApiToken(msgspec.Struct, frozen=True):
    """A person's token; the token itself is never stored."""

    name: str
    role: Role
    created_at_s: float


class DatasetRow(msgspec.Struct, frozen=True):
    """A registered dataset; its file is the blob ``sha256``."""

    name: str
    sha256: str
    size_bytes: int
    samples: int
    feature_shape: tuple[int, ...]
    classes: tuple[str, ...]
    created_at_s: float


class VersionStatus(StrEnum):
    """The life of a model version on the hub."""

    TRAINING = "TRAINING"
    REGISTERED = "REGISTERED"
    RELEASED = "RELEASED"
    REVOKED = "REVOKED"
    FAILED = "FAILED"


class Revocation(msgspec.Struct, frozen=True):
    """That a version was withdrawn: when, by whom, and why."""

    at_s: float
    by: str
    reason: str


class VersionRow(msgspec.Struct, frozen=True):
    """One version of a model.

    Attributes:
        status: TRAINING → REGISTERED → RELEASED, or FAILED; the last two of the way may end REVOKED.
        manifest_sha256: The bundle; None until registered.
        report: What training and conversion measured, as they wrote it.
        cause: Why it failed.
    """

    model: str
    version: int
    status: VersionStatus
    dataset: str
    estimator: str
    hyperparameters: dict[str, Any]
    seed: int
    created_at_s: float
    manifest_sha256: str | None = None
    report: dict[str, Any] | None = None
    cause: Cause | None = None
    released_at_s: float | None = None
    revoked: Revocation | None = None


class NewDevice(msgspec.Struct, frozen=True):
    """A device about to become a member."""

    device_id: str
    password_hash: str
    attributes: dict[str, str]
    capabilities: Capabilities


class DeviceRow(msgspec.Struct, frozen=True):
    """A member of the fleet.

    Attributes:
        sequence: Sequence number of its current assignment; 0 before the first.
        accepted_sequence: Highest one that the device said it accepted.
        reported: Its last heartbeat; None before the first.
        last_seen_at_s: When the hub last heard from it.
    """

    device_id: str
    attributes: dict[str, str]
    capabilities: Capabilities
    enrolled_at_s: float
    online: bool
    sequence: int
    accepted_sequence: int
    last_seen_at_s: float | None = None
    reported: StateReport | None = None


class DeviceChange(NamedTuple):
    """That a device enrolled, or became another one: attributes, capabilities or tags.

    Attributes:
        number: Rises with every change of any device.
        device_id: Of which device that was the last change.
    """

    number: int
    device_id: str


class Desired(msgspec.Struct, frozen=True):
    """What a device should run, and under which sequence number it was last changed."""

    sequence: int
    orders: tuple[ModelOrder, ...]
    wishes: Wishes = NO_WISHES


class Hold(msgspec.Struct, frozen=True):
    """That a device's updates are held: since when, by whom and why."""

    at_s: float
    by: str
    reason: str


class DeviceWishes(msgspec.Struct, frozen=True):
    """What operators wish of a device.

    Attributes:
        log_level: In place of the device's own setting; None to leave it that.
        held: That its updates are held; None if they are not.
        diagnostics: Id of the last request for a diagnostic bundle; None before the first.
        count_noise: Epsilon, in thousandths, that its counts need at least; None for as its owner set it.
    """

    log_level: LogLevel | None = None
    held: Hold | None = None
    diagnostics: str | None = None
    count_noise: int | None = None

    def to_send(self) -> Wishes:
        """Return what of it the device is told."""
        return Wishes(self.log_level, self.held is not None, self.diagnostics, self.count_noise)


class Action(msgspec.Struct, frozen=True):
    """What a person did about a device.

    Attributes:
        at_s: When.
        by: The name of the API token.
        text: What was done, one sentence.
    """

    at_s: float
    by: str
    text: str


class ShadowTotals(msgspec.Struct, frozen=True):
    """Everything one device reported about one version in the shadow of another, added up."""

    device_id: str
    report: ShadowReport


class MeasurementRow(msgspec.Struct, frozen=True):
    """What one device measured of a version's variants."""

    device_id: str
    received_at_s: float
    measurement: Measurement


class DiagnosticsRow(msgspec.Struct, frozen=True):
    """A diagnostic bundle without its bytes; ``at_s`` is the device's time."""

    request_id: str
    at_s: float
    received_at_s: float
    size_bytes: int


class OrderChange(msgspec.Struct, frozen=True):
    """A change of one device's desired state: a new order for a model, or none to remove it."""

    device_id: str
    model: str
    order: ModelOrder | None


class StoredRecord(msgspec.Struct, frozen=True):
    """A record as stored.

    Attributes:
        position: Rises with what is stored of the whole fleet; windows that came together share one.
    """

    position: int
    device_id: str
    received_at_s: float
    body: RecordBody


class IncomingRecord(msgspec.Struct, frozen=True, gc=False):
    """A record on its way into the store.

    Attributes:
        head: What the store has to know of it.
        data: The whole record as it came, kept as it is.
    """

    device_id: str
    received_at_s: float
    head: RecordHead
    data: bytes


class RawRecord(NamedTuple):
    """A record as stored, see `StoredRecord`, in the bytes in which it came."""

    position: int
    device_id: str
    received_at_s: float
    data: bytes


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that could not be taken in, kept with its cause.

    Attributes:
        payload: Its beginning.
        device_id: Who sent it, if its topic says so.
    """

    topic: str
    received_at_s: float
    cause: Cause
    payload: bytes
    device_id: str | None = None


class QuarantineRow(msgspec.Struct, frozen=True):
    """From when to when nothing is taken of a device because it said too much."""

    device_id: str
    since_s: float
    until_s: float


class VersionTotals(msgspec.Struct, frozen=True):
    """Everything one device reported about one version, added up."""

    device_id: str
    model: str
    version: int
    totals: TelemetryWindow


class RolloutRow(msgspec.Struct, frozen=True):
    """A rollout and how far it has read the records."""

    state: Rollout
    position: int
    created_at_s: float


class SummaryRow(msgspec.Struct, frozen=True):
    """A rollout without its devices, and how far it has read the records."""

    state: Summary
    position: int
    created_at_s: float


class RolloutHead(msgspec.Struct, frozen=True):
    """Which rollout it is and where it stands, without its devices."""

    number: int
    model: str
    status: Status
    revision: int
    awaits_approval: bool = False


class RolloutStep(msgspec.Struct, frozen=True):
    """A step of a rollout as it is stored: before and after, how far it has read, and the orders."""

    state: Rollout
    previous: Rollout
    position: int
    changes: tuple[OrderChange, ...] = ()


class Superseded(msgspec.Struct, frozen=True):
    """A rollout that a rollback puts aside: its last state, and the one before."""

    state: Rollout
    previous: Rollout


class DriftRow(msgspec.Struct, frozen=True):
    """The drift alarm of one device and version, as the last look left it.

    Attributes:
        alarm: The alarm, and how many looks there were.
        last_look: What the last look found, feature by feature.
        raised_at_s: Since when there is an alarm: when the last window of the look ended; None while none is.
        looked_at_s: When the last window of the last look ended.
    """

    device_id: str
    model: str
    version: int
    alarm: AlarmState = AlarmState()
    last_look: tuple[FeatureDrift, ...] = ()
    raised_at_s: float | None = None
    looked_at_s: float | None = None
