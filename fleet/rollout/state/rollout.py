"""The state of a rollout: everything that the engine knows, and all that the hub has to store.

::

                  Start                  PASS of every stage, or Promote
    CREATED ────────────────→ RUNNING ──────────────────────────────────────────→ SUCCEEDED
       │                       ↑   │ FAIL, Abort                    (all are back)
       │ Abort          Resume,│   ├───────────────→ ROLLING_BACK ───────────────→ ROLLED_BACK
       │                Promote│   │ Pause,                │  (some are not)
       │                       │   ↓ no verdict, ERROR     ├──────────────────────→ FAILED
       │                       PAUSED ── FAIL, Abort ─────→│  (aborted, new version kept)
       └───────────────────────────────────────────────────┴──────────────────────→ ABORTED

Besides, Supersede leads from every status but the final ones to ABORTED, and an operator's rollback that too
many devices did not follow goes from RUNNING to FAILED. The four on the right are final. A value of `Rollout`
never changes: every step builds the next one.

A `Summary` is all but the devices: small however large the fleet is, and written anew with every step. The
devices' parts are kept beside it, as `fleet.rollout.state.deployments` says.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.rollout.gates.evidence import Evidence
from fleet.rollout.gates.gate import Verdict
from fleet.rollout.pace import Pace
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.columns import CODES, STATES, WAITING
from fleet.rollout.state.deployments import Deployments


class Kind(StrEnum):
    """What a rollout is for."""

    UPDATE = "update"
    ROLLBACK = "rollback"


class Status(StrEnum):
    """Where a rollout stands, see the head of this file."""

    CREATED = "CREATED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    ROLLING_BACK = "ROLLING_BACK"
    SUCCEEDED = "SUCCEEDED"
    ABORTED = "ABORTED"
    ROLLED_BACK = "ROLLED_BACK"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        """Whether the rollout has ended."""
        return self in FINAL


HISTORY_KEPT = 100
"""Decisions that are at hand in a rollout; a store keeps all of them."""

PAUSED_BY = "Paused by "
"""Begins the reason of a pause that an operator asked for."""

FINAL = frozenset({Status.SUCCEEDED, Status.ABORTED, Status.ROLLED_BACK, Status.FAILED})


class CauseCode(StrEnum):
    """Why a rollout or one of its attempts ended as it did, where no device gave a cause."""

    GATE_FAILED = "gate_failed"
    INSTALLS_FAILED = "installs_failed"
    INCONCLUSIVE = "gate_inconclusive"
    ABORTED = "aborted"
    RESTORE_FAILED = "restore_failed"
    TIMED_OUT = "deployment_timed_out"
    CANCELED = "canceled"
    UNEXPLAINED = "unexplained"
    WITHIN_TOLERANCE = "failures_within_tolerance"
    SUPERSEDED = "superseded"


class Happening(StrEnum):
    """Kinds of lines in a rollout's history and feed."""

    STARTED = "started"
    STAGE_BEGAN = "stage_began"
    APPROVAL_AWAITED = "approval_awaited"
    APPROVED = "approved"
    STAGE_PASSED = "stage_passed"
    OVERRIDDEN = "overridden"
    PAUSED = "paused"
    RESUMED = "resumed"
    DEPLOYMENT_FAILED = "deployment_failed"
    TELEMETRY_IGNORED = "telemetry_ignored"
    DEVICES_JOINED = "devices_joined"
    DEVICES_TAKEN = "devices_taken"
    DETOURED = "detoured"
    ROLLING_BACK = "rolling_back"
    ENDED = "ended"


OF_DEVICES = frozenset({Happening.DEVICES_JOINED, Happening.DEVICES_TAKEN, Happening.DETOURED})
"""Lines that tell who came, went, or goes elsewhere; the rollout stands where it stood before."""


class HistoryEntry(msgspec.Struct, frozen=True):
    """One decision.

    Attributes:
        at_s: Hub time, Unix seconds.
        kind: What kind of thing happened.
        text: One sentence.
    """

    at_s: float
    kind: Happening
    text: str


class Approval(msgspec.Struct, frozen=True):
    """That a second person lets a stage begin, see `fleet.rollout.approval`.

    Attributes:
        stage: Which stage, from 0.
        by: Who.
        reason: Why; may be empty.
        at_s: Hub time, Unix seconds.
    """

    stage: int
    by: str
    reason: str
    at_s: float


class Absence(msgspec.Struct, frozen=True):
    """Time in which the hub was away, see `fleet.rollout.absence`.

    Attributes:
        since_s: Since when, Unix seconds.
        duration_s: How long, as far as it was told of.
    """

    since_s: float
    duration_s: float


class Joined(msgspec.Struct, frozen=True):
    """Devices that joined, see `fleet.rollout.joined`.

    Attributes:
        untold: How many came into each stage since they were last told of; empty if none did.
        told_s: When that was, hub time; None before the first time.
    """

    untold: tuple[int, ...] = ()
    told_s: float | None = None


class Warned(msgspec.Struct, frozen=True):
    """What was forecast when the rollout was created: that a stage is not likely to pass.

    Attributes:
        stage: Which, from 0.
        text: Why, in a sentence, see `fleet.rollout.forecast`.
    """

    stage: int
    text: str


class Detour(msgspec.Struct, frozen=True):
    """That devices go back to an older version than they ran before, see `fleet.rollout.detours`.

    Attributes:
        previous: What they ran, and cannot have any more.
        to: Where they go back to.
    """

    previous: int
    to: int


class StageProgress(msgspec.Struct, frozen=True):
    """A stage that has begun.

    Attributes:
        size: How many devices it added.
        started_s: When it began, hub time.
        open: How many of its deployments have not ended on the way forward.
        failed: How many of them ended without the device running the version.
        evidence: What was observed while it was the current stage.
        bake_started_s: When its last deployment ended, or the rollout was resumed; None before.
        ended_s: When it passed or was overridden; None before.
        overridden: Whether an operator ended it in place of the gate.
        heard: How many of the devices that it added have reported usable telemetry of the version.
        excused_s: Time since it began in which the hub was away; it counts for no deadline.
    """

    size: int
    started_s: float
    open: int
    failed: int
    evidence: Evidence
    bake_started_s: float | None = None
    ended_s: float | None = None
    overridden: bool = False
    heard: int = 0
    excused_s: float = 0.0


class Look(msgspec.Struct, frozen=True):
    """The last time that the current stage was judged, see `fleet.rollout.looks`.

    Attributes:
        at_s: Hub time.
        windows: How many windows of both arms the verdict is of.
        is_outdated: Whether something came since that could change it.
    """

    at_s: float = 0.0
    windows: int = 0
    is_outdated: bool = False


class Summary(msgspec.Struct, frozen=True):
    """A rollout without its devices.

    Attributes:
        number: The hub's number of it; part of every deployment id.
        kind: Update, or an operator's rollback.
        model: Name of the model.
        version: The version that it brings.
        manifest_sha256: Its bundle; telemetry of this digest is the canaries'.
        plan: As the operator wrote it.
        seed: Fixes the order of devices.
        created_s: Hub time.
        cohort_ends: How many of the devices that it began with each stage reaches; those that joined later
            come after all of them. See `fleet.rollout.targeting`.
        tally: For each stage of the plan how many of its devices wait for their order, and how many are in
            each state of the way forward; the columns are those of `fleet.rollout.state.columns.KINDS`.
        strata: Names of the strata that are judged by name; the first is that of all other devices.
        status: Where it stands.
        stages: The stages that have begun; the last one is current.
        controls: Devices that have not been sent the version and run another: the control arm.
        open_restores: Restore attempts that have not ended.
        open_removals: How many of them remove the model.
        restored: Restore attempts by which the device runs again what it ran before.
        unrestored: Those that ended otherwise.
        next_due_s: Nothing of any device is due before this; None if nothing is at all.
        cursor: Before this place no device of a stage that has begun waits for its order forward.
        pace: Of the orders forward.
        back_cursor: Before this place no device waits for its order back.
        back_pace: Of the orders back.
        ending: What a rollout that is ROLLING_BACK will be; None otherwise.
        cause: Why it is rolling back or ended otherwise than by passing; also failures that were tolerated.
        pause_reason: Why it is paused; empty otherwise.
        revoked: That its version was revoked, a sentence; empty otherwise. It never goes forward again.
        verdict: The latest verdict on the current stage; None before the first.
        look: When that was, and what it is of.
        history: The latest decisions, oldest first, `HISTORY_KEPT` at most; the store keeps all.
        decisions: How many there were in all.
        revision: Rises by one with every change, for optimistic locking.
        ended_s: Hub time; None before the end.
        movers: Who created and started it, and who promoted stages; they cannot approve of one.
        awaits_since_s: Since when the next stage waits for approval, hub time; None while none does.
        approvals: Those given so far, by stage.
        absence: The last one of the hub that was forgiven; None if there was none.
        warned: What was forecast when it was created of stages that are not likely to pass, and what else
            speaks against it.
        detours: Which other ways back devices were led.
        joined: Devices that joined and stand in no line of the history yet.
    """

    number: int
    kind: Kind
    model: str
    version: int
    manifest_sha256: str
    plan: Plan
    seed: int
    created_s: float
    cohort_ends: tuple[int, ...]
    tally: tuple[tuple[int, ...], ...]
    strata: tuple[str, ...] = ("",)
    status: Status = Status.CREATED
    stages: tuple[StageProgress, ...] = ()
    controls: int = 0
    open_restores: int = 0
    open_removals: int = 0
    restored: int = 0
    unrestored: int = 0
    next_due_s: float | None = None
    cursor: int = 0
    pace: Pace = Pace()
    back_cursor: int = 0
    back_pace: Pace = Pace()
    ending: Status | None = None
    cause: Cause | None = None
    pause_reason: str = ""
    revoked: str = ""
    verdict: Verdict | None = None
    history: tuple[HistoryEntry, ...] = ()
    decisions: int = 0
    revision: int = 0
    ended_s: float | None = None
    movers: tuple[str, ...] = ()
    awaits_since_s: float | None = None
    approvals: tuple[Approval, ...] = ()
    absence: Absence | None = None
    look: Look = Look()
    warned: tuple[Warned, ...] = ()
    detours: tuple[Detour, ...] = ()
    joined: Joined = Joined()

    @property
    def stage_index(self) -> int:
        """The current stage, from 0; -1 before the start."""
        return len(self.stages) - 1

    @property
    def stage_sizes(self) -> list[int]:
        """How many devices each stage of the plan adds."""
        return [sum(counts) for counts in self.tally]

    @property
    def last_move(self) -> HistoryEntry | None:
        """The latest decision at hand about where the rollout stands."""
        return next((entry for entry in reversed(self.history) if entry.kind not in OF_DEVICES), None)

    @property
    def device_count(self) -> int:
        """How many devices the rollout has."""
        return sum(self.stage_sizes)

    @property
    def counts(self) -> dict[DeploymentState, int]:
        """How many devices are in each state of the way forward; those of none are left out."""
        totals = [sum(column) for column in zip(*self.tally, strict=True)]
        found = dict(zip(STATES, totals[1:], strict=True))
        found[DeploymentState.QUEUED] += totals[WAITING]
        return {state: number for state, number in found.items() if number}

    def in_state(self, stage: int, state: DeploymentState) -> int:
        """Return how many devices of a stage are in a state of the way forward, ordered or not."""
        waiting = self.tally[stage][WAITING] if state is DeploymentState.QUEUED else 0
        return self.tally[stage][1 + CODES[state]] + waiting


class Rollout(Summary, frozen=True, kw_only=True):
    """A rollout, whole.

    Attributes:
        deployments: One for each device, in the rollout's order.
    """

    deployments: Deployments

    @property
    def summary(self) -> Summary:
        """The rollout without its devices."""
        return Summary(*(getattr(self, name) for name in Summary.__struct_fields__))
