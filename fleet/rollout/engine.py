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
Revoke             -          holds      holds        -               -
EvidenceObserved   -          taken      taken        -               -
WasAway            -          forgives   forgives     forgives        -
Ticked             -          rules      rules        rules           -
=================  =========  =========  ===========  ==============  =======

``-`` changes nothing and returns the same object. ``Approve`` lets a stage begin that waits for it, and is a
conflict where none does (`fleet.rollout.approval`). A conflict is raised before anything is decided. After
every event that is taken, the rules of `fleet.rollout.rules` are applied. Once the
version was revoked, Resume and Promote are conflicts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from fleet.protocol.errors import Cause, Conflict, InvalidPlan, VersionRevoked
from fleet.rollout import absence, approval, attempts, joining, rules, telemetry, yielding
from fleet.rollout.claims import named
from fleet.rollout.events import (
    Abort,
    Approve,
    Command,
    DeploymentReported,
    DeploymentsReported,
    DevicesJoined,
    DevicesTaken,
    Event,
    EvidenceObserved,
    Pause,
    Promote,
    Resume,
    Revoke,
    Start,
    Supersede,
    Ticked,
    WasAway,
)
from fleet.rollout.plans.checks import check_plan
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.deployments import Deployments
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import PAUSED_BY, CauseCode, Happening, Kind, Rollout, Status
from fleet.rollout.targeting import named_strata, ordered, stage_sizes


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
    cast = _cast(
        plan,
        number=number,
        version=version,
        seed=seed,
        devices=devices,
        now_s=now_s,
        strata=strata or {},
        cohorts=cohorts or {},
    )
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
        case EvidenceObserved():
            telemetry.take_windows(draft, event)
        case Revoke():
            _revoke(draft, event)
        case WasAway():
            absence.forgive(draft, event)
        case Ticked():
            pass
        case _:
            _obey(draft, event)
    rules.settle(draft)
    return draft.finished()


def _obey(draft: Draft, event: Start | Pause | Resume | Promote | Approve | Abort | Supersede) -> None:
    """Do what an operator says."""
    match event:
        case Start():
            _start(draft, event)
        case Pause():
            _pause(draft, event)
        case Resume():
            _resume(draft, event)
        case Promote():
            _promote(draft, event)
        case Approve():
            approval.approve(draft, event)
        case Abort():
            _abort(draft, event)
        case Supersede():
            _supersede(draft, event)


class _Cast(NamedTuple):
    """Devices in their stages."""

    ends: tuple[int, ...]
    strata: tuple[str, ...]
    deployments: Deployments


def _cast(
    plan: Plan,
    *,
    number: int,
    version: int,
    seed: int,
    devices: Mapping[str, int | None],
    now_s: float,
    strata: Mapping[str, str],
    cohorts: Mapping[int, Collection[str]],
) -> _Cast:
    """Put the devices that do not run the version into stages.

    Raises:
        InvalidPlan: There is nobody, or the plan does not fit so many devices.
    """
    targets = [device_id for device_id, previous in devices.items() if previous != version]
    if not targets:
        raise InvalidPlan(f"There is no device to bring version {version} to.")
    order, ends = stage_sizes(plan.stages, ordered(seed, targets, strata), cohorts)
    names = named_strata(strata.get(device_id, "") for device_id in order)
    code = {name: place for place, name in enumerate(names)}
    deployments = Deployments.queued(
        number,
        {device_id: devices[device_id] for device_id in order},
        np.repeat(np.arange(len(ends), dtype=np.uint8), np.diff((0, *ends))),
        now_s,
        np.array([code.get(strata.get(device_id, ""), 0) for device_id in order], dtype=np.uint16),
    )
    return _Cast(ends, names, deployments)


def _start(draft: Draft, event: Start) -> None:
    _require(draft, "started", Status.CREATED)
    if event.running is not None:
        _recast(draft, event.running, event.left)
    draft.change(status=Status.RUNNING)
    approval.note_mover(draft, event.by)
    others = ", ".join(str(number) for number in sorted(set(event.left.values())))
    without = f" Without {named(event.left)}: rollout {others} has them." if event.left else ""
    draft.decide(Happening.STARTED, f"Started by {event.by}.{without}")


def _recast(draft: Draft, running: Mapping[str, int | None], left: Collection[str]) -> None:
    """Put the devices into stages anew, by what they run now, without those that another rollout has.

    A stage's named cohort stays who it was.
    """
    rollout = draft.rollout
    devices: dict[str, int | None] = {}
    strata: dict[str, str] = {}
    cohorts = {number: set[str]() for number, stage in enumerate(rollout.plan.stages) if stage.cohort}
    places, editing = np.arange(len(rollout.deployments)), draft.editing
    codes = (editing.column(name, places).tolist() for name in ("stage", "stratum"))
    for device_id, stage, stratum in zip(editing.members.device_ids(places), *codes, strict=True):
        if device_id in left:
            continue
        devices[device_id] = running.get(device_id)
        strata[device_id] = rollout.strata[stratum]
        if stage in cohorts:
            cohorts[stage].add(device_id)
    cast = _cast(
        rollout.plan,
        number=rollout.number,
        version=rollout.version,
        seed=rollout.seed,
        devices=devices,
        now_s=draft.now_s,
        strata=strata,
        cohorts=cohorts,
    )
    draft.change(strata=cast.strata)
    draft.recast(cast.ends, cast.deployments)


def _pause(draft: Draft, event: Pause) -> None:
    _require(draft, "paused", Status.RUNNING)
    rules.pause(draft, f"{PAUSED_BY}{_by(event)}")


def _resume(draft: Draft, event: Resume) -> None:
    _require(draft, "resumed", Status.PAUSED)
    _require_not_revoked(draft)
    if draft.rollout.stages and draft.stage.ended_s is None:
        evidence = draft.stage.evidence
        forgiven = msgspec.structs.replace(evidence.canary, unusable=0)  # or an ERROR would pause it again
        draft.change_stage(
            draft.rollout.stage_index,
            bake_started_s=None,
            evidence=msgspec.structs.replace(evidence, canary=forgiven),
        )
        draft.change(verdict=None)
    draft.change(status=Status.RUNNING, pause_reason="")
    draft.decide(Happening.RESUMED, f"Resumed by {event.by}.")


def _promote(draft: Draft, event: Promote) -> None:
    _require(draft, "promoted", Status.RUNNING, Status.PAUSED)
    _require_not_revoked(draft)
    rollout = draft.rollout
    if not rollout.stages:
        raise Conflict(f"{approval.waiting_sentence(rollout)} A promotion does not replace that.")
    if draft.stage.ended_s is not None and not rules.waits_in_harm(draft):
        if rollout.awaits_since_s is not None:
            raise Conflict(f"{approval.waiting_sentence(rollout)} A promotion does not replace that.")
        raise Conflict(f"Rollout {rollout.number} has ended its last stage; there is none to promote.")
    said = rollout.verdict.sentence if rollout.verdict else "nothing yet"
    draft.change(status=Status.RUNNING, pause_reason="")
    approval.note_mover(draft, event.by)
    stage = f"Stage {rollout.stage_index + 1}"
    draft.decide(
        Happening.OVERRIDDEN, f"{stage} promoted by {event.by}: {event.reason} (the gate said: {said})"
    )
    rules.end_stage(draft, overridden=True)


def _abort(draft: Draft, event: Abort) -> None:
    _require(draft, "aborted", Status.CREATED, Status.RUNNING, Status.PAUSED)
    cause = Cause(CauseCode.ABORTED.value, f"Aborted by {_by(event)}")
    ending = Status.ROLLED_BACK if event.roll_back and draft.rollout.stages else Status.ABORTED
    rules.begin_rollback(draft, ending, cause, keep=not event.roll_back)


def _revoke(draft: Draft, event: Revoke) -> None:
    if draft.rollout.status in {Status.RUNNING, Status.PAUSED} and not draft.rollout.revoked:
        draft.change(revoked=event.why)
        rules.pause(draft, event.why)


def _require_not_revoked(draft: Draft) -> None:
    if draft.rollout.revoked:
        raise VersionRevoked(
            draft.rollout.revoked,
            remedy=f"End it with `muster rollout abort {draft.rollout.number} --rollback`.",
        )


def _supersede(draft: Draft, event: Supersede) -> None:
    _require(draft, "superseded", *(status for status in Status if not status.is_final))
    rules.withdraw(draft, Cause(CauseCode.ABORTED.value, f"Superseded by {_by(event)}"))


def _by(event: Pause | Abort | Supersede) -> str:
    return f"{event.by}: {event.reason}" if event.reason else f"{event.by}."


def _require(draft: Draft, what: str, *allowed: Status) -> None:
    if draft.rollout.status not in allowed:
        raise Conflict(
            f"Rollout {draft.rollout.number} is {draft.rollout.status.value} and cannot be {what}."
            f"{_said_last(draft)}"
        )


def _said_last(draft: Draft) -> str:
    """Return what was decided last and when: most often another operator came first."""
    if not draft.rollout.history:
        return ""
    last = draft.rollout.history[-1]
    ago_s = max(0.0, draft.now_s - last.at_s)
    return f" The last decision, {ago_s:,.0f} s ago: {last.text}"


def _check_kind(kind: Kind, plan: Plan) -> None:
    if kind is Kind.UPDATE and not plan.gate.metrics:
        raise InvalidPlan("gate.metrics: an update needs at least one metric to be judged by.")
    if kind is Kind.ROLLBACK and (len(plan.stages) != 1 or plan.gate.metrics):
        raise InvalidPlan("A rollback has one stage and is judged on installs alone.")
