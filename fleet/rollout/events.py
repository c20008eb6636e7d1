"""What happens to a rollout (events) and what it wants done (commands).

The shell stores the state after an event and the orders in one transaction, and only then acts on them. An
`Assign` carries its deployment id as the idempotency key: carried out twice, it is one order. An `Announce`
is a line of the hub's log; decisions also stand in the rollout's history.
"""

from __future__ import annotations

import msgspec

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.protocol.noised import NoisedWindow
from fleet.protocol.records import SealedWindow, ShadowReport
from fleet.rollout.state.rollout import Happening


class Start(msgspec.Struct, frozen=True):
    """An operator starts the rollout.

    Attributes:
        by: Who.
        running: For each device of the rollout the version that it should run now, None for none: what it
            goes back to. None to leave what was true when the rollout was created.
        left: Devices that stay with another rollout, and its number: this one starts without them.
        note: What else stands in the history of it, a sentence.
    """

    by: str
    running: dict[str, int | None] | None = None
    left: dict[str, int] = {}
    note: str = ""


class Pause(msgspec.Struct, frozen=True):
    """An operator holds it: no stage ends, orders already sent go on, harm still rolls back."""

    by: str
    reason: str


class Resume(msgspec.Struct, frozen=True):
    """An operator lets it go on; the stage's bake starts anew, its evidence stays."""

    by: str


class Promote(msgspec.Struct, frozen=True):
    """An operator ends the stage without the gate; recorded as an override.

    Attributes:
        by: Who.
        reason: Why.
        stage: Which stage is meant, from 1; None for the current one, whichever it is.
    """

    by: str
    reason: str
    stage: int | None = None


class Approve(msgspec.Struct, frozen=True):
    """A second person lets the stage begin that waits for it, see `fleet.rollout.approval`.

    Attributes:
        by: Who.
        reason: Why; may be empty.
        stage: Which stage is meant, from 1; None for the one that waits, whichever it is.
    """

    by: str
    reason: str = ""
    stage: int | None = None


class Abort(msgspec.Struct, frozen=True):
    """An operator ends the rollout for good.

    Attributes:
        by: Who.
        reason: Why.
        roll_back: Bring every device back; otherwise those that have the new version keep it.
    """

    by: str
    reason: str
    roll_back: bool


class Supersede(msgspec.Struct, frozen=True):
    """Other orders for the same devices follow at once: end for good and send nothing more.

    An operator's rollback uses it, also on a rollout that is rolling back: the devices of both are the
    same, and a way back that is under way would only be overtaken.
    """

    by: str
    reason: str


class Revoke(msgspec.Struct, frozen=True):
    """The version of the rollout was revoked: the rollout brings it to nobody any more.

    Who was ordered it and has not ended goes back to what it ran before.

    Attributes:
        why: A sentence.
    """

    why: str


class DeploymentReported(msgspec.Struct, frozen=True):
    """A device reported where its deployment stands.

    Attributes:
        device_id: The device that reported, as the broker authenticated it.
        deployment_id: From the report.
        state: From the report.
        at_s: Device time of the report, Unix seconds.
        cause: From the report.
    """

    device_id: str
    deployment_id: str
    state: DeploymentState
    at_s: float
    cause: Cause | None = None


class DeploymentsReported(msgspec.Struct, frozen=True):
    """Many devices reported; the rules are applied once, after all of it.

    Attributes:
        reports: In the order in which they came.
    """

    reports: tuple[DeploymentReported, ...]


class Joiner(msgspec.Struct, frozen=True):
    """A device that came to match a rollout's target.

    Attributes:
        device_id: The device.
        version: What it runs, and goes back to; None for none.
        stratum: See `fleet.rollout.targeting`.
        matching: Places of the stages whose cohort it matches.
    """

    device_id: str
    version: int | None
    stratum: str = ""
    matching: tuple[int, ...] = ()


class DevicesJoined(msgspec.Struct, frozen=True):
    """Devices came to match the target of a rollout whose membership is continuous."""

    devices: tuple[Joiner, ...]


class DevicesTaken(msgspec.Struct, frozen=True):
    """Another rollout of the model takes devices that this one has not ordered, see `fleet.rollout.yielding`.

    Attributes:
        device_ids: The devices.
        rollout: Number of the other one.
        priority: Of the other one.
    """

    device_ids: tuple[str, ...]
    rollout: int
    priority: int


class DevicesDetoured(msgspec.Struct, frozen=True):
    """Devices were ordered back to an older version than they ran before, see `fleet.rollout.detours`.

    Attributes:
        versions: For each device the version that it was ordered.
        why: That they cannot have what they ran before, a sentence.
    """

    versions: dict[str, int]
    why: str


class EvidenceObserved(msgspec.Struct, frozen=True):
    """Telemetry arrived; each window and each report is given exactly once.

    Attributes:
        windows: With the devices that they are from.
        shadows: Likewise reports of the version in the shadow of the active one.
        noised: Likewise windows whose counts have noise: they are no evidence, and it is said that they came.
        incomparable: Bundles whose inputs are counted in other bins than those of the rollout's version, or
            nobody knows in which: their windows are evidence of everything but inputs.
    """

    windows: tuple[tuple[str, SealedWindow], ...] = ()
    shadows: tuple[tuple[str, ShadowReport], ...] = ()
    noised: tuple[tuple[str, NoisedWindow], ...] = ()
    incomparable: frozenset[str] = frozenset()


class WasAway(msgspec.Struct, frozen=True):
    """The hub was away and heard nothing: the time that passed is nobody's fault, and no deadline counts it.

    Attributes:
        duration_s: How long.
        since_s: Since when. A hub that was killed as it came back tells again of the same absence, which has
            grown: only the rest is forgiven then. None for an absence that is told of once.
    """

    duration_s: float
    since_s: float | None = None


class Ticked(msgspec.Struct, frozen=True):
    """Time passed. Once a second is enough; without it, timeouts and bake times end late."""


Event = (
    Start
    | Pause
    | Resume
    | Promote
    | Approve
    | Abort
    | Supersede
    | DeploymentReported
    | DeploymentsReported
    | DevicesJoined
    | DevicesTaken
    | DevicesDetoured
    | EvidenceObserved
    | Revoke
    | WasAway
    | Ticked
)


class Assign(msgspec.Struct, frozen=True):
    """Sign an assignment, under a higher sequence number, that has the device run this.

    Attributes:
        device_id: The device.
        deployment_id: The order's id, and the command's idempotency key.
        version: What it should run; None to remove the model.
        shadow_s: How long it compares that with what it runs before that may answer.
    """

    device_id: str
    deployment_id: str
    version: int | None
    shadow_s: int = 0


class Announce(msgspec.Struct, frozen=True):
    """Tell the operators.

    Attributes:
        kind: What kind of thing happened.
        text: One sentence.
    """

    kind: Happening
    text: str


Command = Assign | Announce
