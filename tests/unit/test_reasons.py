"""Reasons that people type: one line each, and none where nothing can be seen."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fleet.sentences import by_whom, one_line
from hub.api.reasons import NeededReason, Reason

SEEN: TypeAdapter[str] = TypeAdapter(Reason)
NEEDED: TypeAdapter[str] = TypeAdapter(NeededReason)


@given(st.text(max_size=60))
@example("a\nb\r\nc\u2028d\x85e")
@example("\u200d")
def test_a_text_becomes_one_line_and_stays_it(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert line == line.strip()
    assert "  " not in line
    assert one_line(line) == line
    assert not line or any(letter.isprintable() and letter != " " for letter in line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seen in the lab", "seen in the lab"),
        (" first\n\n  2026-01-01  Stage 9 approved by eve\t", "first 2026-01-01 Stage 9 approved by eve"),
        ("\x1b[2Jgone\x00\u202eback", "[2Jgone back"),
        ("\U0001f469\u200d\U0001f527 mended it", "\U0001f469\u200d\U0001f527 mended it"),
        (" \n\t\u200b\ufeff\u200d ", ""),
    ],
)
def test_what_is_kept_of_a_reason(text: str, line: str) -> None:
    assert one_line(text) == line
    assert SEEN.validate_python(text) == line
    assert by_whom("ann", text) == (f"ann: {line}." if line else "ann.")
    if line:
        assert NEEDED.validate_python(text) == line
    else:
        with pytest.raises(ValidationError, match="at least 1"):
            NEEDED.validate_python(text)


@pytest.mark.parametrize("given", [5, None, ["x"], "x" * 501])
def test_what_is_no_reason_is_refused(given: object) -> None:
    for adapter in (SEEN, NEEDED):
        with pytest.raises(ValidationError):
            adapter.validate_python(given)
