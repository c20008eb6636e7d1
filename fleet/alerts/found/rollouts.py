"""What is found of rollouts: one finding for each that failed, was taken back, or waits for a person.

A rollout that ended stays found for a time, or until a newer one of its model was started: then somebody
acted. What an operator paused or aborted is no news to operators.
"""

from __future__ import annotations

from collections.abc import Callable

from fleet.alerts import commands
from fleet.alerts.alert import Finding, Severity, finding
from fleet.alerts.thresholds import Thresholds
from fleet.rollout.state.masks import has_failed
from fleet.rollout.state.rollout import PAUSED_BY, CauseCode, Kind, Rollout, Status


def rollout_finding(
    rollout: Rollout, now_s: float, *, previous: Callable[[str, int], int | None], thresholds: Thresholds
) -> Finding | None:
    """Return what is found of a rollout; None for nothing.

    Args:
        rollout: The newest of its model that was started.
        now_s: Unix seconds.
        previous: Returns the proven version that devices which are to run one go back to; None for none, also
            where no device is to run it.
        thresholds: Where alerts begin.
    """
    name = f"rollout {rollout.number} of {rollout.model} version {rollout.version}"
    if rollout.status is Status.PAUSED and not rollout.pause_reason.startswith(PAUSED_BY):
        reason = rollout.pause_reason
        sentence = f"{_upper(name)} waits: resume, promote or abort it."
        if rollout.revoked:
            sentence = f"{_upper(name)} never goes forward again: abort it."
        return _finding("paused", rollout, f"{name} is paused", sentence, reason)
    if rollout.awaits_since_s is not None:
        number, movers = len(rollout.stages) + 1, " or ".join(rollout.movers)
        sentence = f"Stage {number} of {name} begins when a second person approves."
        who = f"a second person is who is not {movers}" if movers else "anybody may approve"
        return _finding("approval", rollout, f"{name} waits for approval", sentence, who)
    by_operator = rollout.cause is not None and rollout.cause.code == CauseCode.ABORTED
    cause = rollout.cause.detail if rollout.cause else "no cause is known"
    if rollout.status is Status.ROLLING_BACK and rollout.ending is Status.ROLLED_BACK and not by_operator:
        sentence = f"{_upper(name)} is being taken back."
        return _finding("taken-back", rollout, f"{name} is taken back", sentence, cause)
    if rollout.ended_s is None or now_s - rollout.ended_s >= thresholds.rollout_for_s:
        return None
    if rollout.status is Status.ROLLED_BACK and not by_operator:
        sentence = f"{_upper(name)} was taken back; its devices run what they ran before."
        return _finding("taken-back", rollout, f"{name} was taken back", sentence, cause)
    if rollout.status is Status.FAILED:
        sentence = f"{_upper(name)} failed, and not every device is where it should be."
        back = previous(rollout.model, rollout.version) if rollout.kind is Kind.UPDATE else None
        return _finding("failed", rollout, f"{name} failed", sentence, cause, back=back)
    return None


def _finding(
    what: str, rollout: Rollout, title: str, sentence: str, reason: str, *, back: int | None = None
) -> Finding:
    failed = [part.device_id for part in rollout.deployments.where(has_failed)]
    verdict = [rollout.verdict.sentence] if rollout.verdict else []
    counts = ", ".join(f"{number} {state}" for state, number in sorted(rollout.counts.items()))
    return finding(
        "rollout",
        str(rollout.number),
        what,
        severity=Severity.CRITICAL if rollout.status is Status.FAILED else Severity.WARNING,
        title=title,
        sentence=sentence,
        evidence=[reason or "no reason is known", *verdict, f"devices: {counts or 'none'}"],
        devices=failed,
        command=_command(rollout, title, back),
        inspect=commands.rollout_explain(rollout.number),
        path=f"/api/v1/rollouts/{rollout.number}",
        model=rollout.model,
        version=rollout.version,
    )


def _command(rollout: Rollout, title: str, back: int | None) -> str:
    """Return what acts: lead away who is still to run the version; where nobody is, there is only to look.

    Who was ordered back and is not there keeps that order: it would be refused to bring it there again.
    """
    if rollout.awaits_since_s is not None:
        return commands.rollout_approve(rollout.number, len(rollout.stages) + 1)
    if rollout.status is Status.PAUSED:
        return commands.rollout_abort(rollout.number, title)
    if back is not None:
        return commands.rollback(rollout.model, back, title, commands.running(rollout.model, rollout.version))
    return commands.rollout_status(rollout.number)


def _upper(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
