"""When a receiver is told something of an alert.

=========  ==========================================================================================
RAISED     it fires, no silence mutes it, and the receiver was not told of it
GREW       it is worse, or on half as many devices again, and ``regroup_s`` have passed since
REPEATED   it still fires, nobody acknowledged it, and ``repeat_s`` have passed since
RESOLVED   it ended, and the receiver was told of it; once, whatever silences there are by then
=========  ==========================================================================================

A receiver for which the last message about an alert still waits is told nothing but the end: what waits when
a receiver is down stays bounded.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fleet.alerts.alert import Alert, State, Told

GROWTH = 1.5


class Occasion(StrEnum):
    """Why a receiver is told something."""

    RAISED = "raised"
    GREW = "grew"
    REPEATED = "repeated"
    RESOLVED = "resolved"
    TEST = "test"


class Terms(msgspec.Struct, frozen=True):
    """How often a receiver is told.

    Attributes:
        regroup_s: Least time before it is told that an alert grew.
        repeat_s: Time after which it is told again.
        refreshes: It forgets what is not told again, and is told whether or not anybody acknowledged.
    """

    regroup_s: float
    repeat_s: float
    refreshes: bool = False


def occasion(
    alert: Alert, told: Told | None, terms: Terms, now_s: float, *, waiting: bool
) -> Occasion | None:
    """Return why a receiver is to be told of an alert now; None if it is not.

    Args:
        alert: After this look.
        told: What the receiver was told last of this episode.
        terms: Of the receiver.
        now_s: Unix seconds.
        waiting: Whether the last message still waits.
    """
    if alert.state is State.RESOLVED:
        return Occasion.RESOLVED if told else None
    if alert.state is State.PENDING or alert.silence is not None or waiting:
        return None
    if told is None:
        return Occasion.RAISED
    if now_s - told.at_s >= terms.regroup_s and _grew(alert, told):
        return Occasion.GREW
    reminded = terms.refreshes or alert.acknowledged is None
    return Occasion.REPEATED if reminded and now_s - told.at_s >= terms.repeat_s else None


def tell(alert: Alert, receiver: str, now_s: float) -> Alert:
    """Return the alert after a receiver was told of it as it is."""
    before = alert.told.get(receiver)
    told = Told((before.count if before else 0) + 1, now_s, alert.matter.severity, alert.matter.device_count)
    return msgspec.structs.replace(alert, told={**alert.told, receiver: told})


def message_key(alert: Alert, receiver: str) -> str:
    """Return what names the last message that a receiver was told of an alert; it never names another."""
    return f"{alert.identity}/{receiver}/{alert.told[receiver].count}"


def _grew(alert: Alert, told: Told) -> bool:
    worse = alert.matter.severity.rank > told.severity.rank
    return worse or alert.matter.device_count >= max(told.device_count + 1, GROWTH * told.device_count)
