"""What people see of a rollout that they watch, and what an ``If-Match`` may say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fleet.protocol.errors import InvalidInput
from hub.api.preconditions import tags_in
from hub.cli.rollout_pictures import whereabouts
from hub.cli.rollout_watch import Pace, picture

STAGE = {
    "name": "canary",
    "devices": 40,
    "waiting": 5,
    "succeeded": 30,
    "open": 8,
    "failed": 2,
    "canceled": 3,
    "verdict": "INCONCLUSIVE",
    "bake_started_at_s": None,
    "ended_at_s": None,
    "minimum_bake_s": 60.0,
}
ROLLOUT: dict[str, Any] = {
    "number": 7,
    "model": "digits",
    "version": 2,
    "status": "RUNNING",
    "stage": 1,
    "stages": [STAGE],
    "cause": None,
    "verdict": "inference errors 1.0% of 900",
    "pause_reason": "",
    "revoked": False,
    "awaits_approval_since_s": None,
    "counts": {"QUEUED": 8, "SUCCEEDED": 30},
    "open_restores": 2,
    "restored": 0,
    "unrestored": 0,
    "metrics": [{"outcome": "INCONCLUSIVE", "sentence": "inference errors [1.0%] of 900\x1b[2J"}],
}


def drawn(rollout: dict[str, Any], pace: Pace) -> str:
    """Return the picture as a terminal of 120 columns has it."""
    console = Console(width=120, record=True, force_terminal=False)
    with console.capture() as capture:
        console.print(picture(rollout, [{"at_s": 0.0, "text": "Started by ann."}], pace))
    return capture.get()


def test_a_picture_has_counts_pace_evidence_and_decisions() -> None:
    pace = Pace()
    for second in range(3):
        done = {**STAGE, "succeeded": 10 * (second + 1)}
        pace.note({"stages": [done]}, 100.0 + 30.0 * second)
    assert pace.per_minute == 20.0
    shown = drawn(ROLLOUT, pace)
    assert "32 of 40 ended, 20 a minute; 5 wait for their order" in shown
    assert "2 still to be taken back; inference errors" in shown
    assert "inference errors [1.0%] of 900" in shown
    assert "\x1b[2J" not in shown
    assert "1970-01-01 00:00:00 UTC  Started by ann." in shown
    assert "ended," not in drawn({**ROLLOUT, "status": "SUCCEEDED"}, pace)


def test_a_rollout_that_goes_back_shows_who_is_back() -> None:
    back = {**ROLLOUT, "status": "ROLLING_BACK", "restored": 1_012, "unrestored": 1}
    assert whereabouts(back) == "1,012 taken back, 2 still to be taken back, 1 not taken back"
    assert "ended" not in drawn(back, Pace())
    assert drawn(back, Pace()).count(whereabouts(back)) == 2, "under the stages, and beside the bar"
    assert (
        whereabouts({**back, "status": "ROLLED_BACK", "open_restores": 0, "unrestored": 0})
        == "1,012 taken back"
    )
    assert whereabouts(ROLLOUT) == "8 QUEUED, 30 SUCCEEDED; 2 still to be taken back"
    assert whereabouts({**ROLLOUT, "open_restores": 0}) == "8 QUEUED, 30 SUCCEEDED"


def test_the_pace_is_of_the_last_minute() -> None:
    pace = Pace()
    pace.note({"stages": [{**STAGE, "succeeded": 0, "failed": 0}]}, 0.0)
    assert pace.per_minute == 0.0
    for at_s in (1000.0, 1060.0):
        pace.note({"stages": [{**STAGE, "succeeded": 30, "failed": 0}]}, at_s)
    assert pace.per_minute == 0.0


@given(st.lists(st.integers(0, 10**15 - 1), min_size=1, max_size=5), st.sampled_from([",", " , ", ", "]))
def test_tags_are_read_as_the_rfc_has_them(numbers: list[int], comma: str) -> None:
    assert tags_in(comma.join(f'"{number}"' for number in numbers)) == frozenset(numbers)
    assert tags_in(comma.join(f'W/"{number}"' for number in numbers)) == frozenset()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, None),
        ("*", None),
        (" * ", None),
        ('"x"', set()),
        ('"x", "3"', {3}),
        ('"' + "9" * 40 + '"', set()),
    ],
)
def test_tags_of_others_match_nothing(value: str | None, found: set[int] | None) -> None:
    assert tags_in(value) == found


@pytest.mark.parametrize("value", ["", " ", "7", '"7', '7"', '"7" "8"', '"7",,', "'7'", '"7\n"'])
def test_what_is_no_list_of_tags_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match="If-Match"):
        tags_in(value)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(value: str) -> None:
    try:
        found = tags_in(value)
    except InvalidInput:
        return
    assert found is None or all(number >= 0 for number in found)
