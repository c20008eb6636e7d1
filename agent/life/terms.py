"""What the update machine is about: phases, the state of a model, events, effects.

`agent.life.machine` holds the table that connects them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.protocol.maintenance import Maintenance, Mode
from fleet.protocol.messages import ModelState


class Phase(StrEnum):
    """Where a model is in its life on this device."""

    IDLE = "IDLE"
    DOWNLOADING = "DOWNLOADING"
    VERIFYING = "VERIFYING"
    STAGED = "STAGED"
    TESTING = "TESTING"
    SHADOW = "SHADOW"
    TRIAL = "TRIAL"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"
    REJECTED = "REJECTED"


RESTING = (Phase.IDLE, Phase.COMMITTED, Phase.ROLLED_BACK, Phase.REJECTED)
PREPARING = (Phase.DOWNLOADING, Phase.VERIFYING, Phase.STAGED)
EXPOSED = (Phase.TESTING, Phase.SHADOW, Phase.TRIAL)
"""Phases in which the candidate runs, and may take the process with it."""
UPDATING = (*PREPARING, *EXPOSED)

CRASH_LIMIT = 3
"""A candidate during which the process ended this often is given up before it is loaded again."""


class Release(msgspec.Struct, frozen=True):
    """One variant of one version: what can be installed.

    Attributes:
        version: Its number.
        manifest_sha256: Its bundle, in hexadecimal.
        variant: The variant's name.
    """

    version: int
    manifest_sha256: str
    variant: str


class Life(msgspec.Struct, frozen=True):
    """The state of one model.

    Attributes:
        phase: Where it is.
        deployment_id: The order it carried out last, or works on; empty before the first.
        active: The version that is committed.
        previous: The one before it, kept installed.
        candidate: The one that an update is about.
        crashes: How often the process ended while the candidate ran.
        running: Whether the candidate may be running: a start that finds this set counts a crash.
        ordered: The version of the order; None in states that were written before this was kept.
        alternatives: Variants that may still take the candidate's place, the most promising first.
        policy: How one of them is chosen.
        shadow_s: How long the candidate is to be compared with the active version before it answers.
        maintenance: When it may be swapped in, by the order; None for any time.
        mode: Whom to ask before, by the order.
    """

    phase: Phase = Phase.IDLE
    deployment_id: str = ""
    active: Release | None = None
    previous: Release | None = None
    candidate: Release | None = None
    crashes: int = 0
    running: bool = False
    ordered: Release | None = None
    alternatives: tuple[str, ...] = ()
    policy: VariantPolicy = VariantPolicy.FIRST
    shadow_s: int = 0
    maintenance: Maintenance | None = None
    mode: Mode = Mode.SOFT

    @property
    def offered(self) -> tuple[Release, ...]:
        """The candidate, then what may take its place."""
        if self.candidate is None:
            return ()
        others = (msgspec.structs.replace(self.candidate, variant=name) for name in self.alternatives)
        return (self.candidate, *others)

    @property
    def prepared(self) -> tuple[Release, ...]:
        """What of it is prepared together: all that is measured, else one after the other."""
        return self.offered[:1] if self.policy is VariantPolicy.SMALLEST else self.offered

    @property
    def serving(self) -> Release | None:
        """The version that answers."""
        return self.candidate if self.phase is Phase.TRIAL else self.active

    @property
    def installed(self) -> frozenset[Release]:
        """The versions that must stay on disk."""
        return frozenset(r for r in (self.active, self.previous, *self.prepared) if r is not None)


def model_state(
    model: str, life: Life, answering: Release | None, waiting_for: str | None = None
) -> ModelState:
    """Return what a device tells of a model.

    Args:
        model: Its name.
        life: Its state.
        answering: The version that answers; None if none does.
        waiting_for: What stands against swapping the candidate in, see `agent.life.gate`.
    """
    return ModelState(
        model=model,
        version=answering.version if answering else None,
        manifest_sha256=answering.manifest_sha256 if answering else None,
        variant=answering.variant if answering else None,
        phase=life.phase.value,
        deployment_id=life.deployment_id or None,
        waiting_for=waiting_for,
    )


class Ordered(msgspec.Struct, frozen=True):
    """An accepted assignment orders a version of this model.

    Attributes:
        deployment_id: Of the order.
        release: The version, in the variant that the order names.
        alternatives: Variants that may be chosen in its place.
        policy: How.
        shadow_s: How long it is to be compared with the active version before it answers; 0: not at all.
        maintenance: When it may be swapped in; None for any time.
        mode: Whom to ask before.
    """

    deployment_id: str
    release: Release
    alternatives: tuple[str, ...] = ()
    policy: VariantPolicy = VariantPolicy.FIRST
    shadow_s: int = 0
    maintenance: Maintenance | None = None
    mode: Mode = Mode.SOFT


class Withdrawn(msgspec.Struct, frozen=True):
    """An accepted assignment no longer has this model."""


class Fetched(msgspec.Struct, frozen=True):
    """Every blob of the candidate is here.

    Attributes:
        deployment_id: For which it was fetched.
        kept: The variants to go on with, the first as the candidate: not all may fit. Empty: as before.
    """

    deployment_id: str
    kept: tuple[str, ...] = ()


class Verified(msgspec.Struct, frozen=True):
    """The candidate is installed and every file of it was verified there."""

    deployment_id: str


class Cleared(msgspec.Struct, frozen=True):
    """Nothing stands against running the candidate now."""

    deployment_id: str


class TestPassed(msgspec.Struct, frozen=True):
    """The candidate gave the golden outputs.

    Attributes:
        deployment_id: For which it was tested.
        variant: The one that was chosen; empty: the candidate's own.
    """

    __test__ = False  # not a test of pytest's
    deployment_id: str
    variant: str = ""


class ShadowPassed(msgspec.Struct, frozen=True):
    """The candidate did its time beside the active version and did not fail."""

    deployment_id: str


class TrialPassed(msgspec.Struct, frozen=True):
    """The candidate did its time on probation without breaking a limit."""

    deployment_id: str


class Failed(msgspec.Struct, frozen=True):
    """The work of the phase failed.

    Attributes:
        deployment_id: For which it was done.
        cause: Why.
        refused: Whether the order itself is refused: trust or contents, not circumstances.
    """

    deployment_id: str
    cause: Cause
    refused: bool = False


class Damaged(msgspec.Struct, frozen=True):
    """The files of the active version are not what they were; it cannot be loaded."""

    release: Release


class Restarted(msgspec.Struct, frozen=True):
    """The process has started and read this state."""


class Stopped(msgspec.Struct, frozen=True):
    """The process is about to end in an orderly way."""


Event: TypeAlias = (
    Ordered
    | Withdrawn
    | Fetched
    | Verified
    | Cleared
    | TestPassed
    | ShadowPassed
    | TrialPassed
    | Failed
    | Damaged
    | Restarted
    | Stopped
)


class Report(msgspec.Struct, frozen=True):
    """Tell the hub that a deployment reached a state."""

    deployment_id: str
    version: int
    state: DeploymentState
    cause: Cause | None = None


class Work(msgspec.Struct, frozen=True, tag="work"):
    """Do the work of the new phase, in place of any other."""


class Rest(msgspec.Struct, frozen=True, tag="rest"):
    """Stop all work."""


class Serve(msgspec.Struct, frozen=True, tag="serve"):
    """Let this version answer, or none."""

    release: Release | None


class Clean(msgspec.Struct, frozen=True, tag="clean"):
    """Remove what no version of the state needs."""


Effect: TypeAlias = Report | Work | Rest | Serve | Clean
Effects: TypeAlias = tuple[Effect, ...]
