"""Maintenance windows: the times of the week at which versions may be swapped, in the device's local time.

::

    window = days " " times          days  = day ["-" day] {"," day ["-" day]} | "daily"
                                     day   = "mon" | "tue" | "wed" | "thu" | "fri" | "sat" | "sun"
                                     times = "HH:MM-HH:MM", 00:00 to 24:00

``fri-mon`` goes over the weekend. Times that end before they begin end on the day after: ``fri 22:00-02:00``
is open until two on Saturday. The same time twice is refused: a whole day is ``00:00-24:00``.

A window is about what the clock on the wall shows. Where a change to summer time leaves an hour out, a window
inside it does not open on that day; where an hour comes twice, so does a window inside it.

Pure: the time and the zone's rules are passed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from fleet.protocol.errors import InvalidConfiguration
from fleet.protocol.maintenance import DAYS, Maintenance, minute_of

_PLACES = {day.value: place for place, day in enumerate(DAYS)}
_DAY = 24 * 60
_WEEK = 7 * _DAY
_LARGEST_SHIFT = 3 * 60
"""More minutes than a change to or from summer time moves the clock on the wall."""

_TIMES = re.compile(r"([0-2]\d):([0-5]\d)-([0-2]\d):([0-5]\d)")

ToLocal = Callable[[float], datetime]
"""Gives what the clock on the wall shows at a Unix time."""


class Window(NamedTuple):
    """A time of the week, in minutes since Monday 00:00; the end may lie in the week after."""

    start: int
    end: int

    def has(self, minute: int) -> bool:
        """Tell whether a minute of the week is inside."""
        return self.start <= minute < self.end or self.start <= minute + _WEEK < self.end


def parse_windows(texts: Sequence[str]) -> tuple[Window, ...]:
    """Return the windows that texts of the form above name, one for each day.

    Raises:
        InvalidConfiguration: A text is not of that form.
    """
    return tuple(window for text in texts for window in _parse(text))


def windows_of(ordered: Maintenance | None) -> tuple[Window, ...]:
    """Return the windows of an order, one for each day."""
    if ordered is None:
        return ()
    start, length = minute_of(ordered.from_), ordered.length_minutes
    starts = (DAYS.index(day) * _DAY + start for day in ordered.days)
    return tuple(Window(begin, begin + length) for begin in starts)


def is_open(windows: Sequence[Window], local: datetime) -> bool:
    """Tell whether a version may be swapped at this time on the wall; always if there are no windows."""
    minute = local.weekday() * _DAY + local.hour * 60 + local.minute
    return not windows or any(window.has(minute) for window in windows)


def next_open_s(windows: Sequence[Window], now_s: float, to_local: ToLocal) -> float:
    """Return the Unix time of the first minute from now on at which a version may be swapped.

    Args:
        windows: The windows.
        now_s: Unix time.
        to_local: The zone's rules.
    """
    at_s = now_s
    while not is_open(windows, local := to_local(at_s)):
        minute = local.weekday() * _DAY + local.hour * 60 + local.minute
        # The clock on the wall may be moved meanwhile, so only what is surely closed is passed over.
        ahead = min((window.start - minute) % _WEEK for window in windows)
        behind = min((minute - window.end) % _WEEK for window in windows)
        surely = ahead - _LARGEST_SHIFT if behind > _LARGEST_SHIFT else 1
        at_s = (at_s // 60 + max(1, surely)) * 60
    return at_s


def _parse(text: str) -> list[Window]:
    days, _, times = text.strip().lower().partition(" ")
    match = _TIMES.fullmatch(times.strip())
    if match is None:
        raise _refusal(text)
    start, end = (int(hours) * 60 + int(minutes) for hours, minutes in (match.group(1, 2), match.group(3, 4)))
    if start >= _DAY or end > _DAY or start == end:
        raise _refusal(text)
    length = (end - start) % _DAY or _DAY
    return [Window(day * _DAY + start, day * _DAY + start + length) for day in _days(days, text)]


def _days(days: str, text: str) -> list[int]:
    if days == "daily":
        return list(range(7))
    found: list[int] = []
    for part in days.split(","):
        first, dash, last = part.partition("-")
        if first not in _PLACES or (last if dash else first) not in _PLACES:
            raise _refusal(text)
        begin, count = _PLACES[first], (_PLACES[last or first] - _PLACES[first]) % 7 + 1
        found += [(begin + offset) % 7 for offset in range(count)]
    return found


def _refusal(text: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"{text!r:.80} is no maintenance window.",
        remedy='Write windows such as "mon-fri 02:00-04:30" or "sat,sun 00:00-24:00".',
    )
