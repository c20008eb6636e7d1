"""What a decoder refuses in a plan or scenario, in words of people who write them.

msgspec says ``Expected `float`, got `str` - at `$.gate.metrics[0].margin```. That is exact, and in terms of
Python and JSON; and it does not say what would be right, which the type at that place knows: an enumeration
its values, an object its fields, a text with a form what it is.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Any, NamedTuple

from msgspec import inspect

_PLACE = re.compile(r" - at `\$\.?(.*)`\Z", re.DOTALL)
_STEP = re.compile(r"[^.\[\]]+|\[[^\]]*\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`\Z", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`\Z", re.DOTALL)
_VALUE = re.compile(r"Invalid enum value '?(.*?)'?\Z", re.DOTALL)
_TYPE = re.compile(r"Expected `([^`]*)`, got `([^`]*)`\Z")
_BOUND = re.compile(r"Expected `([^`]*)` (>=|>|<=|<) (\S+)\Z")
_FORM = re.compile(r"Expected `str` matching regex ")
_NOT_FINITE = re.compile(r"[-+]?(nan|inf|infinity)\Z", re.IGNORECASE)
_HUGE = 1e15
_NAMES = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping of fields",
    "null": "nothing",
}
_BOUNDS = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}


class Refusal(NamedTuple):
    """What is wrong, and where.

    Attributes:
        why: A sentence without its end.
        field: The path of the field, such as ``stages[1].devices``; empty for the whole.
        remedy: What would be right; empty if ``why`` says so or nothing is known.
    """

    why: str
    field: str
    remedy: str = ""


def refusal(text: str, kind: type, values: Any = None) -> Refusal:
    """Return what msgspec's message says, in words.

    Args:
        text: Of the error.
        kind: The type that was read.
        values: What it was read from, which tells numbers from one another; None if nobody knows.
    """
    place = _PLACE.search(text)
    field = place[1] if place else ""
    said = text[: place.start()] if place else text
    at = _type_at(kind, field)
    if unknown := _UNKNOWN.match(said):
        path = f"{field}.{unknown[1]}".lstrip(".")
        return Refusal(f"there is no field {unknown[1]!r:.80} here", path, _instead(unknown[1], _fields(at)))
    if missing := _MISSING.match(said):
        return Refusal(f"the field {missing[1]!r:.80} is missing", field)
    if value := _VALUE.match(said):
        return Refusal(f"{value[1]!r:.80} cannot stand here", field, _instead(value[1], _values(at)))
    if wrong := _TYPE.match(said):
        right = " or ".join(_NAMES.get(name, name) for name in wrong[1].split(" | ") if name != "null")
        if "number" in right and (none := _no_number(_value_at(values, field))):
            return Refusal(none, field)
        return Refusal(f"{_found(*wrong.groups())} stands where {right or 'nothing'} belongs", field)
    if bound := _BOUND.match(said):
        return Refusal(
            f"{_NAMES.get(bound[1], bound[1])} of {_BOUNDS[bound[2]]} {bound[3]} belongs here", field
        )
    if _FORM.match(said) and isinstance(at, inspect.Metadata):
        return Refusal("the text does not have the form that belongs here", field, _description(at))
    return Refusal(said, field)


def _found(expected: str, found: str) -> str:
    is_fraction = found == "float" and "float" not in expected
    return "a number with a fraction" if is_fraction else _NAMES.get(found, found)


def _no_number(value: Any) -> str:
    """Return what is wrong with a value that some would write for a number; empty for others."""
    if isinstance(value, str) and _NOT_FINITE.match(value):
        return f"{value} is not a finite number"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN is not a finite number" if math.isnan(value) else "the number is infinite, or too large"
    if isinstance(value, float) and value.is_integer():
        if abs(value) >= _HUGE:
            return f"{value:g} is too large"
        return f"write {int(value)}, not {value!r}, for a whole number"
    return ""


def _value_at(values: Any, field: str) -> Any:
    """Return what stands at a path; None where the path cannot be followed."""
    for step in _STEP.findall(field):
        try:
            values = values[int(step[1:-1])] if step.startswith("[") else values[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return values


def _instead(wrong: str, right: list[str]) -> str:
    if not right:
        return ""
    meant = difflib.get_close_matches(wrong, right, n=1)
    return f"{f'Did you mean {meant[0]}? ' if meant else ''}Possible: {', '.join(right)}."


def _fields(at: inspect.Type | None) -> list[str]:
    return [field.encode_name for field in at.fields] if isinstance(at, inspect.StructType) else []


def _values(at: inspect.Type | None) -> list[str]:
    return [str(member.value) for member in at.cls] if isinstance(at, inspect.EnumType) else []


def _description(at: inspect.Metadata) -> str:
    return str((at.extra_json_schema or {}).get("description", ""))


def _type_at(kind: type, field: str) -> inspect.Type | None:
    """Return the type at a path; None where the path cannot be followed."""
    at: inspect.Type | None = inspect.type_info(kind)
    for step in _STEP.findall(field):
        at = _inside(at, step)
    return _plain(at)


def _inside(at: inspect.Type | None, step: str) -> inspect.Type | None:
    at = _plain(at)
    if isinstance(at, inspect.StructType):
        return next((field.type for field in at.fields if field.encode_name == step), None)
    if isinstance(at, inspect.VarTupleType | inspect.ListType):
        return at.item_type
    return at.value_type if isinstance(at, inspect.DictType) else None


def _plain(at: inspect.Type | None) -> inspect.Type | None:
    """Return the type itself where it may be absent, and what is described where the form is not."""
    if isinstance(at, inspect.UnionType):
        others = [each for each in at.types if not isinstance(each, inspect.NoneType)]
        at = others[0] if len(others) == 1 else None
    if isinstance(at, inspect.Metadata) and not isinstance(at.type, inspect.StrType):
        return _plain(at.type)
    return at
