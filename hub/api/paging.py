"""Pages of lists: how many, and from where."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from fleet.protocol.errors import InvalidInput

MAX_NUMBER = 2**53
"""Numbers above it are exact neither in JSON's clients nor, from 2^63 on, in the database."""

Limit = Annotated[int, Query(ge=1, le=1000, description="Most items on the page.")]

Number = Annotated[int, Path(ge=1, le=MAX_NUMBER)]


def number_in(after: str | None) -> int | None:
    """Return the number that a list's ``next`` holds; None for the first page.

    Raises:
        InvalidInput: It is not one that a list has given.
    """
    if after is None:
        return None
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise InvalidInput(f"{after!r:.80} does not begin a page.", remedy="Pass `next` of the last page.")
    return int(after)
