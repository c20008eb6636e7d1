"""Pages of lists: how many, and from where."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from fleet.protocol.errors import InvalidInput

Limit = Annotated[int, Query(ge=1, le=1000, description="Most items on the page.")]


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
