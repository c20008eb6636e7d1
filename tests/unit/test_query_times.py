"""Time ranges and resolutions as engineers write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.protocol.errors import InvalidInput
from hub.query.times import MAX_SPANS, TimeRange, check_spans, iso, resolution_of, time_range

NOW_S = 1_700_000_000.0


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        (None, None, (NOW_S - 86400, NOW_S)),
        ("-90s", "now", (NOW_S - 90, NOW_S)),
        ("-2w", "-15min", (NOW_S - 14 * 86400, NOW_S - 900)),
        ("-24h", "-1d", None),
        ("2023-11-14", "2023-11-14T22:13:20Z", (1_699_920_000.0, NOW_S)),
        ("2023-11-14T23:13:10+01:00", "2023-11-14 22:13:20", (NOW_S - 10, NOW_S)),
        ("now", "-1h", None),
        ("-999999999w", "now", (0.0, NOW_S)),
    ],
)
def test_a_range_is_understood(start: str | None, end: str | None, found: tuple[float, float] | None) -> None:
    if found is None:
        with pytest.raises(InvalidInput, match="before it starts"):
            time_range(start, end, NOW_S)
    else:
        assert time_range(start, end, NOW_S) == found


@pytest.mark.parametrize(
    "text",
    ["yesterday", "-5", "-5m", "5h", "--5h", "", "1969-12-31", "-٣h", "99999-01-01", "2023-13-01", "9" * 50],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        time_range(text or " ", "now", NOW_S)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        found = time_range(text, None, NOW_S)
    except InvalidInput:
        return
    assert 0.0 <= found.start_s < found.end_s
    assert iso(found.start_s)


def test_a_resolution_fits_the_range_or_is_named() -> None:
    assert resolution_of(None, TimeRange(0, 3600)) == 60
    assert resolution_of(None, TimeRange(0, 3600), finest_s=3600) == 3600
    assert resolution_of(None, TimeRange(0, 86400)) == 3600
    assert resolution_of(None, TimeRange(0, 400 * 86400)) == 86400
    assert resolution_of("minute", TimeRange(0, 86400)) == 60
    with pytest.raises(InvalidInput, match="no resolution"):
        resolution_of("fortnight", TimeRange(0, 1))
    with pytest.raises(InvalidInput, match="by the hour"):
        resolution_of("minute", TimeRange(0, 1), finest_s=3600)


def test_too_many_spans_are_refused() -> None:
    check_spans(TimeRange(0, 60 * MAX_SPANS), 60)
    with pytest.raises(InvalidInput):
        check_spans(TimeRange(0, 60 * MAX_SPANS + 1), 60)


def test_a_range_is_widened_to_whole_spans() -> None:
    assert TimeRange(61, 179).aligned(60) == (60, 180)
    assert TimeRange(60, 180).aligned(60) == (60, 180)


def test_clocks_beyond_the_last_year_are_written_as_its_end() -> None:
    assert iso(2.0**40) == "9999-01-01T00:00:00Z"
