"""What was decided meanwhile: a word that is said of a rollout as it was is refused once others decided.

A word can say in two ways what it was said of. By the number of decisions (`Summary.decisions` in
`fleet.rollout.state.rollout`): a decision is whatever changes what an operator would want, a stage that
began or ended, a pause, an approval, an override, the end. Reports of devices are none: a rollout of a
million devices changes with every second, and nothing that depended on each of them could ever be confirmed
by a person. Or by the stage: a promotion or an approval that names one is carried out once, however often it
is said.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fleet.protocol.errors import Conflict, InvalidInput, Outdated
from fleet.rollout.state.rollout import HistoryEntry, Summary
from fleet.sentences import whole

_TOLD = 3


def check_current(rollout: Summary, decisions: Collection[int] | None) -> None:
    """Refuse a word that was said of another state than this.

    Args:
        rollout: As stored.
        decisions: How many there were when the operator looked, any of these; None for whatever there is.

    Raises:
        Outdated: There were others since, or never so many.
    """
    if decisions is None or rollout.decisions in decisions:
        return
    number, status = rollout.number, rollout.status.value
    seen = max((count for count in decisions if count < rollout.decisions), default=None)
    if seen is None:
        named = f"{min(decisions):,} decisions" if decisions else "so many decisions"
        raise Outdated(
            f"Rollout {number} never had {named}: it is {status} and has had {rollout.decisions:,} of them.",
            remedy=f"`muster rollout status {number}` numbers them.",
        )
    told = _told("Decided since you looked", rollout.history, rollout.decisions - seen)
    raise Outdated(
        f"Rollout {number} is {status} now. {told}",
        remedy=f"Look again with `muster rollout explain {number}`, and say it again if you mean it.",
    )


def check_stage(rollout: Summary, named: int | None, meant: int, left_s: Sequence[float | None]) -> None:
    """Refuse a word that names another stage than the one that it would be about.

    Args:
        rollout: As stored.
        named: The stage that the operator meant, from 1; None for whichever it is.
        meant: The stage that the word would be about, from 1.
        left_s: When each of the stages that have begun was beyond such a word, hub time.

    Raises:
        InvalidInput: There is no such stage.
        Conflict: It is another one's turn.
    """
    if named is None or named == meant:
        return
    number, status = rollout.number, rollout.status.value
    if not 1 <= named <= len(rollout.plan.stages):
        raise InvalidInput(f"Rollout {number} has no stage {named}: its plan has {len(rollout.plan.stages)}.")
    since_s = left_s[named - 1] if named < meant else None
    since = [entry for entry in rollout.history if since_s is not None and entry.at_s >= since_s]
    told = f" {_told('Decided since', since, len(since))}" if since else ""
    raise Conflict(
        f"Rollout {number} is {status}, and it is the turn of stage {meant}, not {named}.{told}",
        remedy=f"Look again with `muster rollout explain {number}`.",
    )


def _told(opening: str, entries: Sequence[HistoryEntry], count: int) -> str:
    """Return the last decisions in words.

    Args:
        opening: How the sentence begins.
        entries: The latest decisions at hand, oldest first.
        count: Of how many of them is to be told, whether they are at hand or not.
    """
    latest = entries[-min(count, _TOLD) :]
    of = f", the last {len(latest)} of {count:,}" if count > len(latest) else ""
    return f"{opening}{of}: {' '.join(whole(entry.text) for entry in latest)}"
