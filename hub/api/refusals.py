"""What is wrong with a request that does not have the form of its route, in one plain sentence.

Pydantic finds it; its own texts speak of its types and are not meant for people. What is not told apart here
is told in its words, behind the name of the field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_PLACES = frozenset({"query", "body", "path", "header"})
_OF_A_UNION = re.compile(r"\A[a-z-]+\[.*\]\Z", re.DOTALL)
"""Where a field may be of several types, Pydantic names the one that it tried behind the field."""
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_WANTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "an object",
}


def sentence_of(found: Sequence[Mapping[str, Any]]) -> str:
    """Return what is wrong, of the first thing that is.

    Args:
        found: The errors of Pydantic's ``ValidationError``, one at least. Of a field that may be of several
            types there is one for each.
    """
    error = found[0]
    is_of_several = _OF_A_UNION.search(str(error["loc"][-1])) is not None
    place = [str(part) for part in error["loc"] if not _OF_A_UNION.search(str(part))]
    name = ".".join(place[1:] if len(place) > 1 and place[0] in _PLACES else place)
    kind, context = error["type"], error.get("ctx", {})
    given = f"{error.get('input')!r:.60}"
    match kind:
        case "missing":
            return f"{name} is missing."
        case "extra_forbidden":
            return f"There is no {name} here."
        case "enum" | "literal_error":
            return f"{name} cannot be {given}; use {context['expected']}."
        case "too_long":
            given, most = context["actual_length"], context["max_length"]
            return f"{name} is given {given} times; at most {most} are taken."
        case "too_short":
            return f"{name} needs at least {context['min_length']}, not {context['actual_length']}."
        case "string_too_short" if context["min_length"] == 1:
            return f"{name} is empty."
        case "json_invalid":
            return "The body of the request is not JSON."
    if kind in _WANTED and is_of_several:
        types = [one["type"] for one in found if one["loc"][:-1] == error["loc"][:-1]]
        return f"{name} must be {' or '.join(_WANTED[one] for one in types if one in _WANTED)}, not {given}."
    if kind in _WANTED:
        return f"{name} must be {_WANTED[kind]}, not {given}."
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"{name} must be {words} {context[bound]}, not {given}."
    return f"{name}: {error['msg']}."
