"""What is told of devices that joined: one line of the history for many of them.

Devices may join every few seconds for as long as a rollout lasts. The first are told of at once. Later ones
are added up, and told of when another joins after a tenth of the time that the rollout has lasted, but not
within `TOLD_EVERY_S` and at the latest after a day; and always before the next stage begins and before the
rollout goes back or ends. So a rollout of an hour has 7 such lines at most besides these last, and one of ten
days under 70; after that it is one a day.
"""

from __future__ import annotations

from collections.abc import Iterable

from fleet import sentences
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import Happening, Joined

TOLD_EVERY_S = 600.0
_LATEST_S = 86400.0
_PART = 0.1
"""Of the time that the rollout has lasted."""


def note(draft: Draft, stages: Iterable[int]) -> None:
    """Note into which stages devices came, and tell of them if it is time.

    Args:
        draft: Of this step; it has the devices.
        stages: The stage of each device, from 0.
    """
    joined = draft.rollout.joined
    counts = list(joined.untold or [0] * len(draft.rollout.plan.stages))
    for stage in stages:
        counts[stage] += 1
    draft.change(joined=Joined(tuple(counts), joined.told_s))
    lasted_s = draft.now_s - draft.rollout.created_s
    wait_s = min(max(TOLD_EVERY_S, _PART * lasted_s), _LATEST_S)
    if joined.told_s is None or not 0.0 <= draft.now_s - joined.told_s < wait_s:
        tell(draft)


def tell(draft: Draft) -> None:
    """Tell of the devices that joined and were not told of; nothing if there are none."""
    joined, plan = draft.rollout.joined, draft.rollout.plan
    if not joined.untold:
        return
    where = ", ".join(
        f"{count:,} in stage {place + 1}{f' ({name})' if (name := plan.stages[place].name) else ''}"
        for place, count in enumerate(joined.untold)
        if count
    )
    has = f"the rollout has {sentences.devices(len(draft.editing))} now"
    draft.change(joined=Joined((), draft.now_s))
    draft.decide(Happening.DEVICES_JOINED, f"{sentences.devices(sum(joined.untold))} joined: {where}; {has}.")
