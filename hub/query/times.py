"""Time ranges and resolutions, as engineers write them.

A time is ISO 8601 (``2026-11-21T14:30:00+01:00``; UTC where no zone is given; a date alone is its midnight),
or ``now``, or so long before now: ``-90s``, ``-15min``, ``-24h``, ``-7d``, ``-2w``.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import NamedTuple

from fleet.protocol.errors import InvalidInput
from hub.durations import duration_s
from hub.store.telemetry_rows import DAY_S, HOUR_S, MINUTE_S

MAX_SPANS = 2000
"""Most spans of time of one answer."""
RESOLUTIONS_S = {"minute": MINUTE_S, "hour": HOUR_S, "day": DAY_S}
_SPANS_WANTED = 200
_LAST_S = 253_370_764_800.0  # the year 9999, where ISO 8601 ends


class TimeRange(NamedTuple):
    """From a time up to, but not including, another; Unix seconds."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s

    def aligned(self, resolution_s: int) -> TimeRange:
        """Return the spans of a resolution that have a part in the range."""
        start_s = math.floor(self.start_s / resolution_s) * resolution_s
        return TimeRange(start_s, math.ceil(self.end_s / resolution_s) * resolution_s)


def time_range(start: str | None, end: str | None, now_s: float, *, default: str = "-24h") -> TimeRange:
    """Return the range between two times.

    Args:
        start: As at the head of this file; None for the default.
        end: Likewise; None for now.
        now_s: Unix time.
        default: Where the range begins if nothing is said.

    Raises:
        InvalidInput: One of them is no time, or the range ends before it starts.
    """
    found = TimeRange(_time(start or default, now_s), _time(end or "now", now_s))
    if found.end_s <= found.start_s:
        raise InvalidInput(
            f"The time range ends ({iso(found.end_s)}) before it starts ({iso(found.start_s)}).",
            remedy="Give `from` before `to`.",
        )
    return found


def resolution_of(name: str | None, within: TimeRange, *, finest_s: int = MINUTE_S) -> int:
    """Return the length of the spans that a range is shown in, in seconds.

    Args:
        name: ``minute``, ``hour`` or ``day``; None for the finest that gives a readable number of spans.
        within: The range.
        finest_s: The shortest spans that there are.

    Raises:
        InvalidInput: There is no such resolution, or the range has too many spans of it.
    """
    if name is None:
        fits = [size_s for size_s in RESOLUTIONS_S.values() if within.length_s <= size_s * _SPANS_WANTED]
        return max(finest_s, fits[0] if fits else DAY_S)
    if name not in RESOLUTIONS_S:
        raise InvalidInput(
            f"{name!r:.40} is no resolution.", remedy=f"Use one of {', '.join(RESOLUTIONS_S)}."
        )
    resolution_s = RESOLUTIONS_S[name]
    if resolution_s < finest_s:
        raise InvalidInput(
            f"Single devices are added up by the hour at the finest, not by the {name}.",
            remedy="Use the resolution hour or day.",
        )
    return resolution_s


def check_spans(within: TimeRange, resolution_s: int) -> None:
    """Refuse a range of too many spans; raises `InvalidInput`."""
    spans = math.ceil(within.length_s / resolution_s)
    if spans > MAX_SPANS:
        raise InvalidInput(
            f"The time range has {spans:,} spans of {resolution_s:,} s; {MAX_SPANS:,} are answered at once.",
            remedy="Ask for a shorter range or a coarser resolution.",
        )


def iso(at_s: float) -> str:
    """Return a time as ISO 8601 in UTC, to the second; one of a wrong clock beyond its years as the last."""
    return datetime.fromtimestamp(min(at_s, _LAST_S), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str, now_s: float) -> float:
    if text == "now":
        return now_s
    if text.startswith("-"):
        return max(0.0, now_s - duration_s(text[1:]))
    try:
        when = datetime.fromisoformat(text)
        at_s = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{text!r:.60} is no time.",
            remedy="Write ISO 8601 (2026-11-21T14:30:00Z), -15min, -24h, -7d or now.",
        ) from error
    if not 0.0 <= at_s <= _LAST_S:
        raise InvalidInput(f"{text!r:.60} is before 1970 or after 9998.")
    return at_s
