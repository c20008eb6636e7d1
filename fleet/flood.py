"""When a device says too much: a token bucket limits it, and a flood that lasts puts it in quarantine.

::

    within the limit ──over it──► limited ──for `quarantine_after_s`──► quarantined ──`quarantine_s`──► within
            ▲                        │
            └──── calm for a while ──┘

Tokens come at a steady rate, up to `FloodLimits.burst`. What comes of a calm device may be paid with the
tokens that it is known to have, without counting those that came since (`hub.floods`): so nearly every
message costs one comparison, and a device can have twice the burst at once.

What is limited is refused and not acknowledged: the device keeps it and sends it again later, so a device
that catches up loses nothing. One that stays over the limit is broken or hostile, and costs the hub time even
when it is refused.

Source of the bucket: RFC 2697, "A Single Rate Three Color Marker", section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

BYTES_A_TOKEN = 8192
"""A message costs one token for each such part of it that is begun."""


class FloodLimits(msgspec.Struct, frozen=True):
    """What one device may do.

    Attributes:
        rate: Tokens that come in a second.
        burst: Most tokens that gather.
        quarantine_after_s: A flood that lasts this long ends in quarantine,
        quarantine_s: which lasts this long.
    """

    rate: float
    burst: float
    quarantine_after_s: float
    quarantine_s: float

    @property
    def calm_s(self) -> float:
        """How long a device has to stay within the limit before its flood counts as over."""
        return max(10.0, self.burst / self.rate)


class FloodState(NamedTuple):
    """One device's account. Times are of one clock, in seconds.

    Attributes:
        tokens: What there was at ``at_s``.
        at_s: When it was looked at last.
        flooding_since_s: When the flood began; None without one.
        limited_at_s: When something was refused last.
        quarantined_until_s: None if it is not in quarantine.
    """

    tokens: float
    at_s: float
    flooding_since_s: float | None = None
    limited_at_s: float = 0.0
    quarantined_until_s: float | None = None

    @property
    def is_calm(self) -> bool:
        """Whether there is neither flood nor quarantine."""
        return self.flooding_since_s is None and self.quarantined_until_s is None


class Verdict(StrEnum):
    """What becomes of messages."""

    TAKEN = "taken"
    LIMITED = "limited"
    QUARANTINED = "quarantined"


class Admission(NamedTuple):
    """What was decided.

    Attributes:
        state: The account from now on.
        admitted: How many messages are taken, from the first on.
        verdict: What becomes of the others; TAKEN if there are none.
        began: Whether a quarantine began.
    """

    state: FloodState
    admitted: int
    verdict: Verdict
    began: bool = False


def full(limits: FloodLimits, now_s: float) -> FloodState:
    """Return the account of a device that said nothing for long."""
    return FloodState(limits.burst, now_s)


def cost(size_bytes: int) -> int:
    """Return how many tokens a message costs."""
    return 1 + size_bytes // BYTES_A_TOKEN


def admit(state: FloodState, limits: FloodLimits, costs: Sequence[int], now_s: float) -> Admission:
    """Decide about messages that came together.

    Args:
        state: The device's account.
        limits: What it may do.
        costs: Of each message, see `cost`, in their order.
        now_s: The time. If it went back, no time has passed, and what was to end later than it can has ended.
    """
    if state.quarantined_until_s is not None:
        if 0.0 < state.quarantined_until_s - now_s <= limits.quarantine_s + 1.0:  # it is rounded
            return Admission(state, 0, Verdict.QUARANTINED)
        state = full(limits, now_s)
    passed_s = max(0.0, now_s - state.at_s)
    tokens = min(limits.burst, state.tokens + passed_s * limits.rate)
    admitted = 0
    for each in costs:
        if each > tokens:
            break
        tokens -= each
        admitted += 1
    calm = not 0.0 <= now_s - state.limited_at_s <= limits.calm_s
    since_s = None if calm else state.flooding_since_s
    if admitted == len(costs):
        taken = FloodState(tokens, now_s, since_s, state.limited_at_s)
        return Admission(taken, admitted, Verdict.TAKEN)
    if since_s is None:
        since_s = now_s
    if now_s - since_s >= limits.quarantine_after_s:
        caught = FloodState(0.0, now_s, None, now_s, now_s + limits.quarantine_s)
        return Admission(caught, 0, Verdict.QUARANTINED, began=True)
    return Admission(FloodState(tokens, now_s, since_s, now_s), admitted, Verdict.LIMITED)
