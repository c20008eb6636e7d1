"""When a device swaps a version in by the hub's word: the maintenance window and the mode of an order.

A window is the same time of some days of the week, by the clock on the device's own wall. A time that ends
before it begins ends on the day after: ``[fri]`` from 22:00 to 02:00 is open until two on Saturday. In an
order it travels as three small integers, which a microcontroller can compare with its clock::

    [ days: bit 0 is Monday … bit 6 is Sunday, from: minute of the day, to: minute of the day, 1440 at most ]
"""

from __future__ import annotations

import re
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any

import msgspec

DAY_S = 86400
MINUTES_OF_DAY = 24 * 60
LARGEST_SHIFT_MINUTES = 120
"""More than this no change to or from summer time moves the clock on the wall; mostly it is an hour."""
LEFT_OUT = ((22 * 60, 28 * 60, 60), (25 * 60, 27 * 60, 120))
"""Which minutes such changes leave out in the zones that there are (tz database), and how many at most: an
hour between ten in the evening and four, and in Antarctica/Troll two hours."""
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\Z|24:00\Z", re.ASCII)

Time = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$",
        description="A time on the clock on the wall, 00:00 to 24:00.",
    ),
]


class Day(StrEnum):
    """A day of the week."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


DAYS = tuple(Day)


class Mode(StrEnum):
    """Whom a device asks before it swaps a version in, see the agent's gate.

    SOFT asks everybody. FORCED asks neither the device's maintenance windows nor its readiness program; the
    hold at the device and the hub's own hold count all the same.
    """

    SOFT = "soft"
    FORCED = "forced"


class Maintenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A time of the week.

    Attributes:
        days: On which it begins, at least one.
        from_: When it begins, ``HH:MM``.
        to: When it ends, ``HH:MM``; before or at ``from_`` means on the day after.
    """

    days: tuple[Day, ...]
    from_: Time = msgspec.field(name="from")
    to: Time

    @property
    def length_minutes(self) -> int:
        """How long it is open; 0 if it never opens."""
        return (minute_of(self.to) - minute_of(self.from_)) % MINUTES_OF_DAY or (
            MINUTES_OF_DAY if self.to != self.from_ else 0
        )


def minute_of(time: str) -> int:
    """Return the minute of the day that ``HH:MM`` names.

    Raises:
        ValueError: It is no time from 00:00 to 24:00.
    """
    if _TIME.match(time) is None:
        raise ValueError(f"{time!r:.20} is no time from 00:00 to 24:00")
    return int(time[:2]) * 60 + int(time[3:])


def longest_closed_s(window: Maintenance) -> float:
    """Return the longest time that the window stays closed in any zone; infinite if it never opens.

    Clocks are moved once in that time at most. Moved back while it is closed, they leave it closed for
    longer. Moved forward, they may leave out all of the window, and it does not open on that day; the hours
    that are left out are none of those for which it is closed then.
    """
    if not window.days or window.length_minutes == 0:
        return float("inf")
    starts = sorted({DAYS.index(day) for day in window.days})
    following = [*starts[1:], starts[0] + len(DAYS)]
    closed = [
        max(0, (after - start) * MINUTES_OF_DAY - window.length_minutes)
        for start, after in zip(starts, following, strict=True)
    ]
    longest = max(closed) + min(max(closed), LARGEST_SHIFT_MINUTES)
    if _may_be_left_out(window):
        longest = max(longest, *(one + next_one for one, next_one in pairwise([*closed, closed[0]])))
    return longest * 60.0


def _may_be_left_out(window: Maintenance) -> bool:
    """Tell whether there are zones in which a change to summer time may leave out all of a window."""
    return any(
        (minute_of(window.from_) - begin) % MINUTES_OF_DAY + window.length_minutes <= end - begin
        and window.length_minutes <= longest
        for begin, end, longest in LEFT_OUT
    )


def maintenance_fields(window: Maintenance) -> list[int]:
    """Return the window as it travels, see the head of this file."""
    days = sum(1 << DAYS.index(day) for day in set(window.days))
    return [days, minute_of(window.from_), minute_of(window.to)]


def read_maintenance(value: Any) -> Maintenance:
    """Return the window that an order carries.

    Raises:
        ValueError: It is none, or never opens.
    """
    is_whole = isinstance(value, list) and len(value) == 3 and all(type(number) is int for number in value)
    if not is_whole:
        raise ValueError("the maintenance window is not three integers")
    days, start, end = value
    if not (1 <= days < 1 << len(DAYS) and 0 <= start < MINUTES_OF_DAY and 0 <= end <= MINUTES_OF_DAY):
        raise ValueError("the maintenance window lies outside the week")
    window = Maintenance(
        days=tuple(day for bit, day in enumerate(DAYS) if days >> bit & 1), from_=_text(start), to=_text(end)
    )
    if window.length_minutes == 0:
        raise ValueError("the maintenance window never opens")
    return window


def _text(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
