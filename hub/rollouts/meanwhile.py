"""What operators did meanwhile: a word that is said of a rollout as it was is refused once others decided.

A rollout's decisions are numbered (`Summary.decisions` in `fleet.rollout.state.rollout`). A decision is
whatever changes what an operator would want: a stage that began or ended, a pause, an approval, an override,
the end. Reports of devices are none: a rollout of a million devices changes with every second, and nothing
that depended on each of them could ever be confirmed by a person.
"""

from __future__ import annotations

from collections.abc import Collection

from fleet.protocol.errors import Outdated
from fleet.rollout.state.rollout import Rollout
from fleet.sentences import whole

_TOLD = 3


def check_current(rollout: Rollout, decisions: Collection[int] | None) -> None:
    """Refuse a word that was said of another state than this.

    Args:
        rollout: As stored.
        decisions: How many there were when the operator looked, any of these; None for whatever there is.

    Raises:
        Outdated: There were others since.
    """
    if decisions is None or rollout.decisions in decisions:
        return
    since = rollout.decisions - max(decisions, default=0)
    entries = rollout.history[-since:] if 0 < since <= len(rollout.history) else rollout.history
    told = " ".join(whole(entry.text) for entry in entries[-_TOLD:])
    raise Outdated(
        f"Rollout {rollout.number} is {rollout.status.value} now. Decided since you looked: {told}",
        remedy=f"Look again with `muster rollout explain {rollout.number}`, and say it again if you mean it.",
    )
