"""Detours: ways back that lead to an older version, because what devices ran before was revoked.

The shell finds the version while it orders the way back (`fleet.rollout.proven`), so the order, and what is
noted here of it, are one transaction. From then on the device goes back to that version as if it had run it
before. A detour stands in the history once, however many waves of devices take it.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from fleet.rollout.events import DevicesDetoured
from fleet.rollout.state.columns import IS_TERMINAL, NO_VERSION, NOT_BACK
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import Detour, Happening


def take(draft: Draft, event: DevicesDetoured) -> None:
    """Note where devices go back to; of one that is not on its way back, or removes the model, nothing."""
    heading: dict[int, list[int]] = defaultdict(list)
    for device_id, version in event.versions.items():
        place = draft.editing.members.place(device_id)
        if place is not None:
            heading[version].append(place)
    for version in sorted(heading, reverse=True):
        places = np.array(sorted(heading[version]), dtype=np.intp)
        rows = draft.editing.rows(places)
        is_going = (rows["back_state"] != NOT_BACK) & ~IS_TERMINAL[rows["back_state"]]
        leaves = rows["previous_version"]
        for previous in np.unique(leaves[is_going & (leaves != NO_VERSION) & (leaves != version)]).tolist():
            draft.editing.assign(places[is_going & (leaves == previous)], previous_version=version)
            _say(draft, Detour(previous, version), event.why)


def _say(draft: Draft, detour: Detour, why: str) -> None:
    if detour in draft.rollout.detours:
        return
    draft.change(detours=(*draft.rollout.detours, detour))
    text = f"Devices go back to version {detour.to} in place of version {detour.previous}: {why}"
    draft.decide(Happening.DETOURED, text)
