"""``If-Match`` and ``ETag`` (RFC 9110, sections 8.8.3 and 13.1.1) of what is changed by decisions.

The entity tag of a rollout is the number of its decisions in quotes, such as ``"7"``: it changes with
whatever an operator would want to know before saying something, and with no device's report
(`fleet.rollout.meanwhile`).
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header, Response

from fleet.protocol.errors import InvalidInput, PreconditionRequired

_TAGS = re.compile(r'\s*(W/)?"([^"\x00-\x20\x7f]*)"\s*(?:,|\Z)')


def tags_in(value: str | None) -> frozenset[int] | None:
    """Return the decisions that an ``If-Match`` names; None if it is absent or ``*``.

    A tag that is weak, or that no rollout ever had, matches none, as the RFC has it.

    Raises:
        InvalidInput: It is not a list of entity tags.
    """
    if value is None or value.strip() == "*":
        return None
    found, place = set(), 0
    while place < len(value):
        match = _TAGS.match(value, place)
        if match is None:
            break
        if match[1] is None and match[2].isascii() and match[2].isdigit() and len(match[2]) < 16:
            found.add(int(match[2]))
        place = match.end()
    if place < len(value) or not value.strip():
        raise InvalidInput(
            f"If-Match: {value!r:.80} is no list of entity tags.", remedy='Send "7", as ETag says.'
        )
    return frozenset(found)


def tell(response: Response, decisions: int) -> None:
    """Put the entity tag of a rollout into an answer."""
    response.headers["ETag"] = f'"{decisions}"'


def _if_match(
    if_match: Annotated[
        str | None, Header(description="The ETag that the rollout must still have; 412 if it has another.")
    ] = None,
) -> frozenset[int] | None:
    return tags_in(if_match)


IfMatch = Annotated[frozenset[int] | None, Depends(_if_match)]


def check_named(number: int, what: str, stage: int | None, expected: frozenset[int] | None) -> None:
    """Refuse a word that does not say which state it is about, if it would do harm when it is said twice.

    Args:
        number: Of the rollout.
        what: The word.
        stage: The stage that it names.
        expected: What its ``If-Match`` names.

    Raises:
        PreconditionRequired: It names neither (RFC 6585, section 3).
    """
    if stage is None and expected is None:
        raise PreconditionRequired(
            f"{what} does not say which stage of rollout {number} is meant; said twice, it would skip one.",
            remedy="Name it by `stage`, on the command line `--stage N`, or send If-Match, `--if-match N`; "
            f"`muster rollout explain {number}` shows them.",
        )
