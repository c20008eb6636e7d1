"""Maintenance windows: every text means what it says, also when the clock on the wall is moved."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache, partial
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.life.maintenance import is_open, next_open_s, parse_windows, windows_of
from fleet.protocol.errors import InvalidConfiguration
from fleet.protocol.maintenance import (
    DAYS,
    LARGEST_SHIFT_MINUTES,
    LEFT_OUT,
    Day,
    Maintenance,
    longest_closed_s,
)
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

MANY = settings(max_examples=examples(200), derandomize=True, deadline=None)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
MINUTES = st.integers(0, 24 * 60 - 1)
# Around both changes of every zone above, and in between.
TIMES_S = st.integers(1_740_000_000, 1_770_000_000)


def to_local(zone: str, unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, ZoneInfo(zone)).replace(tzinfo=None)


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@st.composite
def window_texts(draw: st.DrawFn) -> str:
    days = ",".join(draw(st.lists(st.sampled_from(DAYS), min_size=1, max_size=3, unique=True)))
    start, end = draw(st.lists(MINUTES, min_size=2, max_size=2, unique=True))
    return f"{days} {clock(start)}-{clock(end)}"


def says_open(text: str, local: datetime) -> bool:
    """Tell it in another way: by the texts themselves."""
    days, times = text.split(" ")
    start, end = times.split("-")
    now, today, yesterday = f"{local:%H:%M}", DAYS[local.weekday()], DAYS[local.weekday() - 1]
    if start < end:
        return today in days and start <= now < end
    return (today in days and now >= start) or (yesterday in days and now < end)


@given(st.lists(window_texts(), min_size=1, max_size=3), TIMES_S, ZONES)
@MANY
def test_a_window_is_open_when_its_text_says_so(texts: list[str], at_s: int, zone: str) -> None:
    local = to_local(zone, at_s)
    assert is_open(parse_windows(texts), local) is any(says_open(text, local) for text in texts)


@given(st.lists(window_texts(), min_size=1, max_size=2), TIMES_S, ZONES)
@settings(max_examples=examples(60), derandomize=True, deadline=None)
def test_the_next_opening_is_the_first_minute_that_is_open(texts: list[str], at_s: int, zone: str) -> None:
    windows, local = parse_windows(texts), partial(to_local, zone)
    found_s = next_open_s(windows, at_s, local)
    minute_s = float(at_s)
    while not is_open(windows, local(minute_s)):
        minute_s = (minute_s // 60 + 1) * 60
    assert found_s == minute_s


@given(TIMES_S)
@MANY
def test_without_windows_it_is_always_open(at_s: int) -> None:
    assert is_open((), to_local("UTC", at_s))
    assert next_open_s((), at_s, partial(to_local, "UTC")) == at_s


@given(
    st.text(max_size=40) | st.from_regex(r"[a-z,-]{0,12} [0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}", fullmatch=True)
)
@MANY
def test_any_text_is_windows_or_refused(text: str) -> None:
    try:
        windows = parse_windows([text])
    except InvalidConfiguration:
        return
    assert windows
    assert all(0 <= window.start < window.end <= window.start + 24 * 60 for window in windows)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mon",
        "mon 02:00",
        "02:00-04:00",
        "mon 02:00-02:00",
        "mon 24:00-02:00",
        "mon 02:00-24:01",
        "mon 2:00-4:00",
        "mon 02:00-04:60",
        "mon- 02:00-04:00",
        "moon 02:00-04:00",
        "mon,,tue 02:00-04:00",
        "mon;tue 02:00-04:00",
        "mon 02:00-04:00 05:00-06:00",
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfiguration):
        parse_windows([text])


def berlin(*fields: int, fold: int = 0) -> float:
    return datetime(*fields, fold=fold, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()  # type: ignore[arg-type,misc]


def test_a_window_in_the_hour_that_summer_time_leaves_out_opens_a_week_later() -> None:
    windows = parse_windows(["sun 02:15-02:45"])
    # Sunday 30 March 2025: 02:00 is 03:00.
    found_s = next_open_s(windows, berlin(2025, 3, 29, 12, 0), partial(to_local, "Europe/Berlin"))
    assert found_s == berlin(2025, 4, 6, 2, 15)


def test_a_window_in_the_hour_that_comes_twice_opens_twice() -> None:
    windows, local = parse_windows(["sun 02:15-02:45"]), partial(to_local, "Europe/Berlin")
    # Sunday 26 October 2025: 03:00 summer time is 02:00 winter time.
    first_s = next_open_s(windows, berlin(2025, 10, 25, 12, 0), local)
    assert first_s == berlin(2025, 10, 26, 2, 15)
    again_s = next_open_s(windows, first_s + 31 * 60, local)
    assert again_s == berlin(2025, 10, 26, 2, 15, fold=1) == first_s + 3600


def test_a_window_over_midnight_and_over_the_end_of_the_week() -> None:
    windows = parse_windows(["sun 22:00-02:00"])
    for local, expected in [
        (datetime(2025, 6, 8, 21, 59), False),  # noqa: DTZ001 - the clock on the wall
        (datetime(2025, 6, 8, 22, 0), True),  # noqa: DTZ001
        (datetime(2025, 6, 9, 1, 59), True),  # noqa: DTZ001
        (datetime(2025, 6, 9, 2, 0), False),  # noqa: DTZ001
    ]:
        assert is_open(windows, local) is expected


def test_days_may_go_over_the_weekend_and_be_all() -> None:
    assert parse_windows(["fri-mon 00:00-24:00"]) == parse_windows(["fri,sat,sun,mon 00:00-24:00"])
    assert len(parse_windows(["daily 01:00-02:00"])) == 7
    whole = parse_windows(["daily 00:00-24:00"])
    assert all(is_open(whole, datetime.fromtimestamp(s, UTC)) for s in range(0, 7 * 86400, 1799))


DAY_S, WEEK_S = 86400, 7 * 86400
YEAR_S = 1_767_225_600  # 2026
CHANGING = [
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "America/Nuuk",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Antarctica/Troll",
]


def offset_s(zone: ZoneInfo, unix_s: int) -> int:
    offset = datetime.fromtimestamp(unix_s, zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


def changes(zone: ZoneInfo, weeks: int = 52) -> list[int]:
    """Return the Unix times at which the clock is moved, to the minute."""
    found = []
    for begin_s in range(YEAR_S, YEAR_S + weeks * WEEK_S, WEEK_S):
        before_s, after_s = begin_s, begin_s + WEEK_S
        if offset_s(zone, before_s) == offset_s(zone, after_s):
            continue
        while after_s - before_s > 60:
            middle_s = (before_s + after_s) // 120 * 60
            if offset_s(zone, middle_s) == offset_s(zone, begin_s):
                before_s = middle_s
            else:
                after_s = middle_s
        found.append(after_s)
    return found


@cache
def walls(name: str) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return the minute of the week on the wall for each minute of the three weeks around every change."""
    zone, found = ZoneInfo(name), []
    for change_s in changes(zone) or [YEAR_S]:
        begin_s = change_s // DAY_S * DAY_S - 3 * WEEK_S
        quarters = np.arange(begin_s, begin_s + 6 * WEEK_S, 900)
        offsets = np.repeat([offset_s(zone, at_s) for at_s in quarters.tolist()], 15)
        wall_s = np.arange(begin_s, begin_s + 6 * WEEK_S, 60) + offsets
        found.append((wall_s // 60 + 3 * 1440) % (7 * 1440))  # 1970 began on a Thursday
    return found


def closed_for_s(window: Maintenance, zone: str) -> int:
    """Return the longest time that devices keep a window closed around the changes of a year."""
    longest = 0
    for wall in walls(zone):
        opened = np.zeros(7 * 1440, dtype=bool)
        for begin, end in windows_of(window):
            opened[np.arange(begin, end) % (7 * 1440)] = True
        longest = max(longest, int(np.diff(np.flatnonzero(opened[wall])).max()) - 1)
    return longest * 60


@given(
    days=st.sets(st.sampled_from(list(Day)), min_size=1),
    begins=MINUTES | st.integers(0, 5 * 60),
    length=st.integers(1, 1440) | st.integers(1, 130) | st.sampled_from([30, 60, 120]),
    zone=st.sampled_from(CHANGING),
)
@settings(max_examples=examples(100), derandomize=True, deadline=None)
def test_no_window_stays_closed_for_longer_than_plans_are_held_to(
    days: set[Day], begins: int, length: int, zone: str
) -> None:
    to = (begins + length) % 1440
    window = Maintenance(tuple(sorted(days)), clock(begins), "24:00" if begins == to == 0 else clock(to))
    if window.length_minutes == 0:
        return
    assert closed_for_s(window, zone) <= longest_closed_s(window)


@pytest.mark.parametrize(
    ("days", "times", "hours"),
    [
        (list(Day), ("02:00", "03:00"), 2 * 23),
        ([Day.SUN], ("02:00", "03:00"), 2 * (7 * 24 - 1)),
        ([Day.SUN], ("02:15", "02:45"), 2 * (7 * 24 - 0.5) - 0.5),  # an hour is left out, with it
        (list(Day), ("12:00", "13:00"), 23 + 1),
        (list(Day), ("02:00", "03:30"), 22.5),
    ],
)
def test_how_long_windows_of_paris_are_closed(days: list[Day], times: tuple[str, str], hours: float) -> None:
    window = Maintenance(tuple(days), *times)
    assert closed_for_s(window, "Europe/Paris") == hours * 3600
    assert closed_for_s(window, "Europe/Paris") <= longest_closed_s(window) <= (hours + 2) * 3600


def test_no_zone_moves_its_clocks_otherwise_than_plans_are_checked_for() -> None:
    for name in sorted(available_timezones())[::7] + CHANGING:  # a part of them: most are alike
        zone = ZoneInfo(name)
        for change_s in changes(zone):
            moved = (offset_s(zone, change_s) - offset_s(zone, change_s - 60)) // 60
            assert abs(moved) <= LARGEST_SHIFT_MINUTES, name
            begin = ((change_s + offset_s(zone, change_s)) // 60 - moved) % 1440
            assert moved < 0 or any(
                (begin - first) % 1440 + moved <= last - first and moved <= most
                for first, last, most in LEFT_OUT
            ), name
