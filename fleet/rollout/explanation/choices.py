"""What an operator can do with a rollout where it is, as `fleet.rollout.engine` allows."""

from __future__ import annotations

import json
import shlex

import msgspec

from fleet.rollout.approval import is_judged_on, second_person
from fleet.rollout.gates.gate import Outcome
from fleet.rollout.state.deployments import scan
from fleet.rollout.state.masks import can_be_sent_back, is_not_back
from fleet.rollout.state.rollout import Rollout, Status
from fleet.sentences import devices

_NAMED_DEVICES = 5
"""Most devices that a command names one by one."""


class Choice(msgspec.Struct, frozen=True):
    """What an operator can do.

    Attributes:
        command: As a line for a shell.
        effect: What it does.
    """

    command: str
    effect: str


def choices(rollout: Rollout) -> list[Choice]:
    """Return what an operator can do, as `fleet.rollout.engine` allows."""
    number, status = rollout.number, rollout.status
    if rollout.revoked:
        return _ends(rollout)
    found: list[Choice] = []
    if status is Status.CREATED:
        found.append(Choice(f"muster rollout start {number}", "begins it"))
    if rollout.awaits_since_s is not None:
        effect = f"begins the stage; by somebody{second_person(rollout)}"
        command = f"muster rollout approve {number} --stage {len(rollout.stages) + 1}"
        found.append(Choice(command, effect))
    if status is Status.PAUSED:
        found.append(Choice(f"muster rollout resume {number}", "lets it go on; the stage's bake starts anew"))
    if status is Status.RUNNING:
        found.append(Choice(f"muster rollout pause {number}", "holds it; harm is taken back all the same"))
    if _is_promotable(rollout):
        command = f"muster rollout promote {number} --stage {len(rollout.stages)} --reason TEXT"
        found.append(Choice(command, "ends the stage without the gate's word, as an override"))
    return [*found, *_ends(rollout)]


def _leads_back(rollout: Rollout) -> Choice:
    """Return how people bring devices back that did not get there by themselves."""
    parts = rollout.deployments.where(is_not_back, limit=_NAMED_DEVICES)
    named = [part.device_id for part in parts]
    target = shlex.quote(f"id in {json.dumps(named)}")
    command = f"muster rollback {rollout.model} --to VERSION --target {target}"
    more = f", {len(named)} of {rollout.unrestored:,}" if rollout.unrestored > len(named) else ""
    return Choice(command, f"brings devices that are not back to an older version of your choice{more}")


def _ends(rollout: Rollout) -> list[Choice]:
    """Return how it can be ended, and where its devices are listed."""
    number, status = rollout.number, rollout.status
    found: list[Choice] = []
    if status in {Status.CREATED, Status.RUNNING, Status.PAUSED}:
        keeps = "ends it; devices that run the version keep it, those on their way to it go back"
        effect = keeps if rollout.stages else "ends it before it began"
        found.append(Choice(f"muster rollout abort {number}", effect))
    if status in {Status.RUNNING, Status.PAUSED} and rollout.stages:
        count = len(scan(rollout.deployments.pages, can_be_sent_back))
        takes = f"takes it back from {devices(count)}" if count else "sends back no further device"
        found.append(Choice(f"muster rollout abort {number} --rollback", f"ends it and {takes}"))
    if status in {Status.FAILED, Status.SUCCEEDED} and rollout.unrestored:
        found.append(_leads_back(rollout))
    if rollout.stages:
        found.append(Choice(f"muster rollout devices {number}", "lists every device's part"))
    return found


def _is_promotable(rollout: Rollout) -> bool:
    if rollout.status not in {Status.RUNNING, Status.PAUSED} or not rollout.stages:
        return False
    in_harm = rollout.verdict is not None and rollout.verdict.outcome is Outcome.FAIL
    waits_in_harm = rollout.status is Status.PAUSED and is_judged_on(rollout) and in_harm
    return rollout.stages[-1].ended_s is None or waits_in_harm
