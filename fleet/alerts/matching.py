"""Which alerts somebody means: by kind, severity, model, device or key; and silences, which mute those.

An alert on several devices is muted by silences of devices only if every one of them has such a silence: a
silence for one camera must not hide that 500 others began to drift.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from fleet.alerts.alert import Matter, Severity


class Match(msgspec.Struct, frozen=True):
    """What an alert must have; what is empty or None asks for nothing.

    Attributes:
        kinds: One of these.
        severities: One of these.
        models: One of these.
        keys: One of these.
    """

    kinds: tuple[str, ...] = ()
    severities: tuple[Severity, ...] = ()
    models: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def holds(self, matter: Matter) -> bool:
        """Tell whether an alert about this is meant."""
        return (
            (not self.kinds or matter.kind in self.kinds)
            and (not self.severities or matter.severity in self.severities)
            and (not self.models or matter.model in self.models)
            and (not self.keys or matter.key in self.keys)
        )


class Silence(msgspec.Struct, frozen=True):
    """That alerts are not told for a while; they stay visible.

    Attributes:
        number: The hub's number of it.
        match: Which alerts.
        device: Only for this device; None for all.
        created_at_s: Since when, Unix seconds.
        ends_at_s: Until when; an operator may bring it forward.
        by: Who.
        reason: Why.
        ended_by: Who ended it early; None for nobody.
    """

    number: int
    match: Match
    device: str | None
    created_at_s: float
    ends_at_s: float
    by: str
    reason: str
    ended_by: str | None = None


def muting(matter: Matter, devices: Sequence[str], silences: Iterable[Silence], now_s: float) -> int | None:
    """Return the number of a silence that mutes an alert; None if it is not muted.

    Args:
        matter: What the alert is about.
        devices: All its devices, or as many as are known by name.
        silences: All there are.
        now_s: Unix seconds.
    """
    meant = [s for s in silences if s.created_at_s <= now_s < s.ends_at_s and s.match.holds(matter)]
    for silence in meant:
        if silence.device is None:
            return silence.number
    silenced = {silence.device: silence.number for silence in meant}
    if devices and len(devices) >= matter.device_count and silenced.keys() >= set(devices):
        return silenced[devices[0]]
    return None
