"""Maintenance windows: every text means what it says, also when the clock on the wall is moved."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.life.maintenance import is_open, next_open_s, parse_windows
from fleet.protocol.errors import InvalidConfiguration
from fleet.protocol.maintenance import DAYS

MANY = settings(max_examples=200, derandomize=True, deadline=None)
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
@settings(max_examples=60, derandomize=True, deadline=None)
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
