"""Reasons that people give in requests: they stand in histories and lists, so each is one line.

Line breaks and control codes become spaces (`fleet.sentences.one_line`). What nobody can see is no reason:
where one is needed, blanks are refused like nothing at all.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from fleet.sentences import one_line

MOST_LETTERS = 500


def _line(given: Any) -> Any:
    return one_line(given) if isinstance(given, str) else given


Reason = Annotated[Annotated[str, Field(max_length=MOST_LETTERS)], BeforeValidator(_line)]
"""May be empty."""

NeededReason = Annotated[Annotated[str, Field(min_length=1, max_length=MOST_LETTERS)], BeforeValidator(_line)]
"""Must say something."""
