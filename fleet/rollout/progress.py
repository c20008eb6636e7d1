"""What nearly all reports say, that a way forward goes on, for many devices at once.

::

    a batch ─┬─ plain: no cause, a state of the way forward ─► columns: 1st report of each device, 2nd, …
             └─ the others, and all that their devices report after them ─► one by one, in their order

A plain report moves its device on or changes nothing, concerns no other device, and commands nothing: so of
different devices it does not matter whose is taken first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.deployment import PROGRESS, DeploymentState
from fleet.rollout.events import DeploymentReported
from fleet.rollout.state.columns import CODES, IS_TERMINAL, STATES, SUCCEEDED, Places, chosen
from fleet.rollout.state.draft import Draft

_PATTERN = r"r([0-9]{1,15})-([0-9]{1,9})(?:(b)|f([1-9][0-9]?)?)"
_DEPLOYMENT_ID = re.compile(rf"{_PATTERN}\Z", re.ASCII)
_DEPLOYMENT_IDS = re.compile(rf"^{_PATTERN}$", re.ASCII | re.MULTILINE)
_TRIAL = CODES[DeploymentState.TRIAL]
_PLAIN = {state: CODES[state] for state in (*PROGRESS, DeploymentState.SUCCEEDED)}
_RANKS = np.array([PROGRESS.index(state) if state in PROGRESS else -1 for state in STATES])
"""How far each state of a row is; -1 for those that are not on the way."""
_RANKS[SUCCEEDED] = len(PROGRESS)


Said = tuple[int, int, bool, int]
"""What a deployment id says: number of the rollout, the device's place in it, whether it is of the way
forward, and how many of these ended before it."""
_NOT_ONE: Said = (-1, 0, False, 0)


def read_id(deployment_id: str) -> Said | None:
    """Return what a deployment id says; None if it is not one of a rollout."""
    match = _DEPLOYMENT_ID.match(deployment_id)
    if match is None:
        return None
    rollout, place, back, tries = match.groups()
    return int(rollout), int(place), back is None, int(tries) if tries else 0


def read_ids(deployment_ids: Sequence[str]) -> list[Said]:
    """Return what deployment ids say, at half the cost each; -1 stands for the rollout of what is not one."""
    lines = "\n".join(deployment_ids)
    found = _DEPLOYMENT_IDS.findall(lines)
    if len(found) == len(deployment_ids) == lines.count("\n") + 1:
        return [
            (int(rollout), int(place), not back, int(tries) if tries else 0)
            for rollout, place, back, tries in found
        ]
    return [read_id(deployment_id) or _NOT_ONE for deployment_id in deployment_ids]


def take_plain(draft: Draft, reports: Sequence[DeploymentReported]) -> list[DeploymentReported]:
    """Take the plain reports of this rollout's devices; return those that are to be taken one by one."""
    if not reports:
        return []
    said = np.array(read_ids([report.deployment_id for report in reports]))
    are_members = draft.editing.members.are_at(said[:, 1], [report.device_id for report in reports])
    ours = np.flatnonzero((said[:, 0] == draft.rollout.number) & are_members)
    if len(ours) == 0:
        return []
    ours = ours[np.argsort(said[ours, 1], kind="stable")]  # device by device, of each in their order
    places, is_forward, tries = said[ours, 1], said[ours, 2], said[ours, 3]
    states = np.array([_PLAIN.get(one.state, -1) if one.cause is None else -1 for one in reports])[ours]
    at_s = np.array([report.at_s for report in reports])[ours]
    is_plain = (states >= 0) & (is_forward == 1)
    first = np.flatnonzero(np.diff(places, prepend=-1))  # of each device, as follow the next two
    size = np.diff(first, append=len(places))
    unlike = np.cumsum(~is_plain)
    is_plain &= unlike == np.repeat((unlike - ~is_plain)[first], size)  # and none before it was another
    turns = np.arange(len(places)) - np.repeat(first, size)
    for turn in range(int(turns[is_plain].max(initial=-1)) + 1):
        now = is_plain & (turns == turn)
        _move(draft, places[now], tries[now], states[now], at_s[now])
    return [reports[number] for number in np.sort(ours[~is_plain]).tolist()]


def _move(
    draft: Draft, places: Places, tries: NDArray[np.intp], states: NDArray[np.intp], at_s: NDArray[np.float64]
) -> None:
    """Move devices on; of each, in ascending order of places, there is one report."""
    rows = draft.editing.rows(places)
    goes_on = (_RANKS[states] > _RANKS[rows["state"]]) & ~IS_TERMINAL[rows["state"]]
    goes_on &= (rows["tries"] == tries) & ~np.isnan(rows["ordered_s"])
    before, states, at_s = chosen(rows, goes_on), states[goes_on], at_s[goes_on]
    if len(before) == 0:
        return
    succeeded, after = states == SUCCEEDED, chosen(rows, goes_on)
    answers = (succeeded | (states == _TRIAL)) & np.isnan(before["answers_since_s"])
    after["state"], after["cause"], after["since_s"] = states, 0, draft.now_s
    after["answers_since_s"][answers] = at_s[answers]
    after["due_s"][succeeded] = np.nan
    draft.editing.put_rows(places[goes_on], before, after)
    for number, count in enumerate(np.bincount(after["stage"][succeeded]).tolist()):
        if count:
            draft.change_stage(number, open=draft.rollout.stages[number].open - count)
            draft.outdate_verdict()
