"""The rollout engine: ``step(state, event, now) -> (state, commands)``.

Pure and total. The state that goes in is never changed (see `fleet.rollout.state.draft`), equal arguments
give equal results, and any event is handled in any status:

=================  =========  =========  ===========  ==============  =======
event              CREATED    RUNNING    PAUSED       ROLLING_BACK    final
=================  =========  =========  ===========  ==============  =======
Start              begins     Conflict   Conflict     Conflict        Conflict
Pause              Conflict   holds      Conflict     Conflict        Conflict
Resume             Conflict   Conflict   goes on      Conflict        Conflict
Promote            Conflict   overrides  overrides    Conflict        Conflict
Approve            Conflict   lets       lets         Conflict        Conflict
Abort              ends       ends       ends         Conflict        Conflict
Supersede          ends       ends       ends         ends            Conflict
DeploymentReport.  -          taken      taken        taken           -
Deployments…       -          taken      taken        taken           -
DevicesJoined      taken      taken      taken        -               -
DevicesTaken       -          taken      taken        -               -
DevicesDetoured    -          taken      taken        taken           -
Revoke             -          withdraws  withdraws    -               -
EvidenceObserved   -          taken      taken        -               -
WasAway            -          forgives   forgives     forgives        -
Ticked             -          rules      rules        rules           -
=================  =========  =========  ===========  ==============  =======

``-`` changes nothing and returns the same object. ``Approve`` lets a stage begin that waits for it, and is a
conflict where none does (`fleet.rollout.approval`). A conflict is raised before anything is decided
(`fleet.rollout.operators`). After every event that is taken, the rules of `fleet.rollout.rules` are applied.
``Revoke`` holds the rollout and takes back every order that has not ended; after it, Resume and Promote are
conflicts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fleet.protocol.errors import InvalidPlan
from fleet.rollout import absence, attempts, casting, detours, joining, operators, rules, telemetry, yielding
from fleet.rollout.events import (
    Command,
    DeploymentReported,
    DeploymentsReported,
    DevicesDetoured,
    DevicesJoined,
    DevicesTaken,
    Event,
    EvidenceObserved,
    Revoke,
    Ticked,
    WasAway,
)
from fleet.rollout.plans.checks import check_plan
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import Kind, Rollout


def create(
    *,
    number: int,
    kind: Kind,
    model: str,
    version: int,
    manifest_sha256: str,
    plan: Plan,
    seed: int,
    devices: Mapping[str, int | None],
    now_s: float,
    strata: Mapping[str, str] | None = None,
    cohorts: Mapping[int, Collection[str]] | None = None,
    created_by: str = "",
) -> Rollout:
    """Return a new rollout in status CREATED. Devices that run the version already are left out.

    Args:
        number: Unique among the hub's rollouts.
        kind: Update or rollback.
        model: Name of the model.
        version: The version to bring.
        manifest_sha256: Its bundle.
        plan: Checked here.
        seed: Fixes the order of devices.
        devices: For each device the version that it runs now, None for none.
        now_s: Hub time, Unix seconds.
        strata: The stratum of devices, see `fleet.rollout.targeting`; None for one that all are in.
        cohorts: By the place of a stage that names its cohort: the devices that match.
        created_by: Who creates it; empty if nobody knows.

    Raises:
        InvalidPlan: The plan is refused, does not fit these devices or this kind, or there is nobody to
            bring the version to.
    """
    check_plan(plan)
    _check_kind(kind, plan)
    meant = casting.Meant(devices, strata or {}, cohorts or {})
    cast = casting.cast(plan, meant, number=number, version=version, seed=seed, now_s=now_s)
    return Rollout(
        number=number,
        kind=kind,
        model=model,
        version=version,
        manifest_sha256=manifest_sha256,
        plan=plan,
        seed=seed,
        created_s=now_s,
        cohort_ends=cast.ends,
        strata=cast.strata,
        tally=tuple(map(tuple, cast.deployments.tally(len(cast.ends)).tolist())),
        deployments=cast.deployments,
        movers=(created_by,) if created_by else (),
    )


def step(rollout: Rollout, event: Event, now_s: float) -> tuple[Rollout, tuple[Command, ...]]:
    """Return the state after an event, and what is to be done.

    Args:
        rollout: The state before; it stays as it is.
        event: What happened.
        now_s: Hub time, Unix seconds.

    Raises:
        Conflict: An operator asks for what the rollout's status does not allow.
        NotPermitted: Who moved the rollout approves of a stage.
        InvalidPlan: At the start there is nobody left to bring the version to.
    """
    draft = Draft(rollout, now_s)
    match event:
        case DeploymentReported():
            attempts.take_report(draft, event)
        case DeploymentsReported():
            attempts.take_reports(draft, event.reports)
        case DevicesJoined():
            joining.take_in(draft, event)
        case DevicesTaken():
            yielding.give_up(draft, event)
        case DevicesDetoured():
            detours.take(draft, event)
        case EvidenceObserved():
            telemetry.take_windows(draft, event)
        case Revoke():
            operators.revoke(draft, event)
        case WasAway():
            absence.forgive(draft, event)
        case Ticked():
            pass
        case _:
            operators.obey(draft, event)
    rules.settle(draft)
    return draft.finished()


def _check_kind(kind: Kind, plan: Plan) -> None:
    if kind is Kind.UPDATE and not plan.gate.metrics:
        raise InvalidPlan(
            "gate.metrics: an update needs at least one metric to be judged by.", field="gate.metrics"
        )
    if kind is Kind.ROLLBACK and (len(plan.stages) != 1 or plan.gate.metrics):
        raise InvalidPlan("A rollback has one stage and is judged on installs alone.")
