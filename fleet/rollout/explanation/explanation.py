"""Why a rollout is where it is, in a sentence or two, and what makes it go on.

Pure: the shell reads the rollout and what is known of few devices (`fleet.rollout.explanation.groups`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.maintenance import DAYS
from fleet.rollout.approval import second_person
from fleet.rollout.explanation.choices import Choice, choices
from fleet.rollout.explanation.groups import LOOKED_AT, Group, held_up_by, not_following, under_way
from fleet.rollout.explanation.reasons import Facts
from fleet.rollout.explanation.silence import Silence, silences
from fleet.rollout.gates.gate import Outcome, Verdict
from fleet.rollout.plans.naming import stage_of_all
from fleet.rollout.plans.plan import OnInconclusive
from fleet.rollout.state.columns import WAITING
from fleet.rollout.state.rollout import Happening, HistoryEntry, Kind, Rollout, Status
from fleet.sentences import devices, rough_duration

OVERRIDES_TOLD = 5
_FORWARD = (Status.CREATED, Status.RUNNING, Status.PAUSED)


class Explanation(msgspec.Struct, frozen=True):
    """Why a rollout is where it is.

    Attributes:
        number: Of the rollout.
        status: Where it stands.
        why: One sentence or two.
        since_s: Since when, hub time.
        verdict: The gate's latest sentence; empty before the first, and where an operator ended the stage
            before anything was compared.
        verdict_stage: Of which stage that is, from 1; None without one.
        goes_on: What would make it go on, each a sentence; nothing at the end.
        warnings: What was forecast of stages to come, and of this one, when the rollout was created.
        held_up_by: Devices that have not ended and are to, and those of which a gate that cannot decide
            hears nothing.
        not_following: Devices that ended without running the version.
        looked_at: Of so many devices under way it was asked whether they are offline, held or in quarantine;
            the others are told by their state alone.
        under_way: How many devices are under way.
        overrides: Decisions by which operators replaced the gate's, the latest last.
        choices: What an operator can do now.
        decisions: How many decisions there were; what ``If-Match`` is compared with.
    """

    number: int
    status: Status
    why: str
    since_s: float
    verdict: str
    verdict_stage: int | None
    goes_on: tuple[str, ...]
    warnings: tuple[str, ...]
    held_up_by: tuple[Group, ...]
    not_following: tuple[Group, ...]
    looked_at: int
    under_way: int
    overrides: tuple[HistoryEntry, ...]
    choices: tuple[Choice, ...]
    decisions: int


def explain(rollout: Rollout, facts: Mapping[str, Facts], now_s: float) -> Explanation:
    """Return why a rollout is where it is.

    Args:
        rollout: As stored.
        facts: Of the devices of `fleet.rollout.explanation.groups.concerned`.
        now_s: Hub time, Unix seconds.
    """
    last = rollout.last_move
    is_moving = rollout.stages and not rollout.status.is_final
    number = under_way(rollout) if is_moving else 0
    overrides = [entry for entry in rollout.history if entry.kind is Happening.OVERRIDDEN]
    silent, verdict = silences(rollout), _verdict(rollout)
    return Explanation(
        number=rollout.number,
        status=rollout.status,
        why=_why(rollout, now_s),
        since_s=last.at_s if last is not None else rollout.created_s,
        verdict=verdict.sentence if verdict else "",
        verdict_stage=verdict.stage + 1 if verdict else None,
        goes_on=() if rollout.status.is_final else tuple(_goes_on(rollout, silent, now_s)),
        warnings=tuple(_warnings(rollout)),
        held_up_by=held_up_by(rollout, facts, silent, now_s),
        not_following=not_following(rollout),
        looked_at=min(number, LOOKED_AT),
        under_way=number,
        overrides=tuple(overrides[-OVERRIDES_TOLD:]),
        choices=tuple(choices(rollout)),
        decisions=rollout.decisions,
    )


def _verdict(rollout: Rollout) -> Verdict | None:
    """Return the latest verdict, unless its stage was ended in place of a gate that had heard nothing."""
    verdict = rollout.verdict
    if verdict is None or verdict.outcome is not Outcome.INCONCLUSIVE:
        return verdict
    stage = rollout.stages[verdict.stage]
    return None if stage.overridden and not stage.evidence.canary.windows else verdict


def _warnings(rollout: Rollout) -> list[str]:
    """Return what was forecast of the stages that have not ended, of a rollout that goes forward."""
    if rollout.status not in _FORWARD:
        return []
    ended = sum(stage.ended_s is not None for stage in rollout.stages)
    return [warned.text for warned in rollout.warned if warned.stage >= ended]


def _why(rollout: Rollout, now_s: float) -> str:
    cause = rollout.cause.detail if rollout.cause else ""
    match rollout.status:
        case Status.CREATED:
            return "It was created and waits to be started."
        case Status.PAUSED:
            waits = f" {_waits(rollout, now_s)}" if rollout.awaits_since_s is not None else ""
            never = " It never goes forward again." if rollout.revoked else ""
            return f"It is paused: {rollout.pause_reason}{waits}{never}"
        case Status.RUNNING:
            return _where(rollout, now_s)
        case Status.ROLLING_BACK:
            left = devices(rollout.open_restores)
            return f"It is taken back: {cause} Not yet back: {left}."
        case Status.SUCCEEDED:
            return f"Every stage has ended. {cause}".rstrip()
        case _:
            return cause


def _where(rollout: Rollout, now_s: float) -> str:
    """Return where a rollout that is RUNNING is."""
    if rollout.awaits_since_s is not None:
        return _waits(rollout, now_s)
    stage, name = rollout.stages[-1], stage_of_all(rollout.plan, rollout.stage_index)
    earlier = sum(part.open for part in rollout.stages[:-1])
    if stage.open:
        are = "is" if earlier == 1 else "are"
        more = f"; {devices(earlier)} of earlier stages {are} open as well" if earlier else ""
        ends = f"{stage.open:,} of {devices(stage.size)} to end {_their(stage.open)} deployment"
        return f"{name} waits for {ends}{more}."
    if stage.ended_s is not None and earlier:
        return f"{name} has ended. {devices(earlier)} of earlier stages {_have(earlier)} not ended."
    if stage.bake_started_s is None:
        return f"{name} begins."
    baked = rough_duration(now_s - stage.bake_started_s)
    return f"{name} has baked for {baked}. Deployments that ended: {stage.size:,} of {stage.size:,}."


def _their(number: int) -> str:
    return "its" if number == 1 else "their"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _waits(rollout: Rollout, now_s: float) -> str:
    assert rollout.awaits_since_s is not None
    name = stage_of_all(rollout.plan, len(rollout.stages))
    since = rough_duration(now_s - rollout.awaits_since_s)
    return f"{name} has waited for approval by a second person for {since}."


def _goes_on(rollout: Rollout, silent: Sequence[Silence], now_s: float) -> list[str]:
    """Return what would make a rollout go on that has not ended."""
    if rollout.status is Status.CREATED:
        return ["Somebody starts it."]
    if rollout.revoked and rollout.status is not Status.ROLLING_BACK:
        back = rollout.open_restores
        if not back:
            return ["Somebody ends it."]
        pace = _pace(rollout.plan.rollback_devices_per_minute)
        go, run = ("goes", "runs") if back == 1 else ("go", "run")
        going = f"{devices(back)} on {_their(back)} way to the version {go} back{pace}, or {run} out of time."
        return [going, *_next(rollout, now_s), "Somebody ends it."]
    if rollout.status is Status.ROLLING_BACK:
        pace = _pace(rollout.plan.rollback_devices_per_minute)
        return [
            f"Every device that got the version goes back{pace}, or runs out of time.",
            *_next(rollout, now_s),
        ]
    found = ["Somebody resumes it."] if rollout.status is Status.PAUSED else []
    if rollout.awaits_since_s is not None:
        somebody = f"Somebody approves{second_person(rollout)}."
        return [*found, f"{somebody} Harm ends the waiting, time does not."]
    waiting = sum(counts[WAITING] for counts in rollout.tally[: rollout.stage_index + 1])
    if waiting:
        get = "gets" if waiting == 1 else "get"
        found.append(f"{devices(waiting)} {get} {_their(waiting)} order{_limits(rollout)}.")
    if any(stage.open for stage in rollout.stages):
        ends = "Every device that has its order ends, or runs out of time."
        found += [ends, *_window(rollout), *_next(rollout, now_s)]
    if rollout.stages[-1].ended_s is None:
        found += _verdict_needed(rollout, silent, now_s)
    return found


def _window(rollout: Rollout) -> list[str]:
    """Return when devices that have the version ready swap it in, if the plan says so."""
    window, stages = rollout.plan.maintenance, range(len(rollout.stages))
    if window is None or not any(rollout.in_state(stage, DeploymentState.STAGED) for stage in stages):
        return []
    days = (
        "any day" if len(window.days) == len(DAYS) else ", ".join(day for day in DAYS if day in window.days)
    )
    return [f"Devices swap it in on {days}, {window.from_} to {window.to} on their own clocks."]


def _verdict_needed(rollout: Rollout, silent: Sequence[Silence], now_s: float) -> list[str]:
    number, stage = rollout.stage_index, rollout.stages[-1]
    bounds = rollout.plan.stages[number]
    started_s = stage.bake_started_s
    baked_s = 0.0 if started_s is None else now_s - started_s
    found = []
    if rollout.kind is Kind.UPDATE:
        found.append(_pass_needed(rollout, bounds.minimum_bake_s - baked_s))
        found += [side.sentence for side in silent if side.is_short]
        running = rollout.in_state(number, DeploymentState.SUCCEEDED)
        if running < bounds.minimum_devices:
            run = "runs" if bounds.minimum_devices == 1 else "run"
            least = f"At least {devices(bounds.minimum_devices)} of the stage {run} the version"
            found.append(f"{least}; {running:,} {'does' if running == 1 else 'do'}.")
    if started_s is not None and rollout.status is Status.RUNNING and rollout.kind is Kind.UPDATE:
        rolls_back = rollout.plan.on_inconclusive is OnInconclusive.ROLL_BACK
        what = "is taken back" if rolls_back else "is paused"
        found.append(f"Without that it {what} in {rough_duration(bounds.maximum_bake_s - baked_s)}.")
    return found


def _next(rollout: Rollout, now_s: float) -> list[str]:
    """Return when the first device is due; ``next_due_s`` may be that of one that has ended since."""
    due_s = rollout.deployments.least("due_s")
    if due_s is None:
        return []
    return [f"The next of them runs out of time, or is tried again, in {rough_duration(due_s - now_s)}."]


def _limits(rollout: Rollout) -> str:
    most = rollout.plan.concurrency
    return _pace(rollout.plan.devices_per_minute) + (f", {most:,} open at once" if most is not None else "")


def _pace(per_minute: float | None) -> str:
    return f", {per_minute:g} a minute" if per_minute is not None else ""


def _pass_needed(rollout: Rollout, left_s: float) -> str:
    """Return that the gate is to say PASS, and when it counts.

    Args:
        rollout: Whose current stage has not ended.
        left_s: So long the stage is to bake yet; it begins to when its last deployment has ended.
    """
    stage, verdict = rollout.stages[-1], rollout.verdict
    from_then = ", counted from when the last of them ends" if stage.bake_started_s is None else ""
    earliest = f"in {rough_duration(left_s)} at the earliest{from_then}"
    if verdict is None or verdict.outcome is not Outcome.PASS or verdict.stage != rollout.stage_index:
        return f"The gate says PASS, {earliest}." if left_s > 0 else "The gate says PASS."
    if left_s > 0:
        return f"The gate says PASS already; the least time to bake is over {earliest}."
    return "The gate still says PASS."
