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

from fleet.protocol.deployment import PROGRESS, DeploymentState
from fleet.rollout.events import DeploymentReported
from fleet.rollout.state.columns import CODES, IS_TERMINAL, STATES, SUCCEEDED, chosen
from fleet.rollout.state.draft import Draft

_DEPLOYMENT_ID = re.compile(r"r([0-9]{1,15})-([0-9]{1,9})(?:(b)|f([1-9][0-9]?)?)\Z", re.ASCII)
_TRIAL = CODES[DeploymentState.TRIAL]
_PLAIN = frozenset((*PROGRESS, DeploymentState.SUCCEEDED))
_RANKS = np.array([PROGRESS.index(state) if state in PROGRESS else -1 for state in STATES])
"""How far each state of a row is; -1 for those that are not on the way."""
_RANKS[SUCCEEDED] = len(PROGRESS)


Said = tuple[int, int, bool, int]
"""What a deployment id says: number of the rollout, the device's place in it, whether it is of the way
forward, and how many of these ended before it."""
_Plain = tuple[int, int, int, float]
"""A plain report: place, tries, state's code, ``at_s``. There are millions of them."""


def read_id(deployment_id: str) -> Said | None:
    """Return what a deployment id says; None if it is not one of a rollout."""
    match = _DEPLOYMENT_ID.match(deployment_id)
    if match is None:
        return None
    rollout, place, back, tries = match.groups()
    return int(rollout), int(place), back is None, int(tries) if tries else 0


def take_plain(draft: Draft, reports: Sequence[DeploymentReported]) -> list[DeploymentReported]:
    """Take the plain reports of this rollout's devices; return those that are to be taken one by one."""
    others: list[DeploymentReported] = []
    rounds: list[list[_Plain]] = []
    seen: dict[int, int] = {}  # how many plain reports came of each device; -1 once another did
    ours = [
        (report, *said[1:])
        for report in reports
        if (said := read_id(report.deployment_id)) is not None and said[0] == draft.rollout.number
    ]
    are_members = draft.editing.members.are_at([one[1] for one in ours], [one[0].device_id for one in ours])
    for (report, place, is_forward, tries), is_member in zip(ours, are_members, strict=True):
        if not is_member:
            continue
        turn = seen.get(place, 0)
        if turn < 0 or not is_forward or report.cause is not None or report.state not in _PLAIN:
            seen[place] = -1
            others.append(report)
            continue
        seen[place] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append((place, tries, CODES[report.state], report.at_s))
    for plain in rounds:
        _move(draft, plain)
    return others


def _move(draft: Draft, reports: list[_Plain]) -> None:
    """Move devices on; of each there is one report."""
    reports.sort()
    places, tries, states, at_s = (np.array(values) for values in zip(*reports, strict=True))
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
