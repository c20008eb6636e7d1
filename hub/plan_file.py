"""Reading a plan's text, YAML or JSON, so that every refusal names line and column.

The text becomes plain values and, beside them, the place of each field. Of YAML only what a plan needs is
read: one document of mappings, lists and scalars. Tags, anchors, aliases, merge keys and repeated keys are
refused, so that nothing is built but plain values and a short text cannot grow into a large one. Scalars are
read by YAML 1.2's core schema, where ``no``, ``on`` and ``22:00`` are texts, not by YAML 1.1, where they are
false, true and 1320. JSON is read by the same rules; what is JSON keeps JSON's values.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, TypeAlias

import msgspec
import yaml

from fleet.protocol.errors import InvalidPlan
from fleet.rollout.plans.plan import MAX_PLAN_SIZE_BYTES, Plan
from fleet.rollout.plans.reading import plan_of

MAX_DEPTH = 16
_INTEGER = re.compile(r"[-+]?[0-9]{1,4000}\Z", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?\Z", re.ASCII)
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_ANY = msgspec.json.Decoder()


class Mark(NamedTuple):
    """A place in the text, both from 1."""

    line: int
    column: int


Marks: TypeAlias = dict[str, Mark]
"""The place of each field, by its path, such as ``stages[1].devices``; that of the whole is ``""``."""


def read_plan(text: str) -> tuple[Plan, Marks]:
    """Return the plan in a text, checked, and where its fields stand.

    Raises:
        InvalidPlan: The message begins with line and column; then the field and the reason.
    """
    values, marks = read_values(text)
    with placing(marks):
        return plan_of(values), marks


@contextmanager
def placing(marks: Marks) -> Generator[None]:
    """Give refusals of a field its line and column, or those of what should hold it.

    Args:
        marks: Of the text; empty where the plan did not come as text.
    """
    try:
        yield
    except InvalidPlan as error:
        field = error.field
        while field and field not in marks:
            field = field[: max(field.rfind("."), field.rfind("["), 0)]
        if not marks:
            raise
        line, column = marks[field]
        raise InvalidPlan(
            f"Line {line}, column {column}: {error.message}", remedy=error.remedy, field=error.field
        ) from error


def read_values(text: str) -> tuple[Any, Marks]:
    """Return the plain values in a text, and where each stands.

    Raises:
        InvalidPlan: It is too long, or neither YAML nor JSON as the head of this file has them.
    """
    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > MAX_PLAN_SIZE_BYTES:
        raise InvalidPlan(f"The plan has {size_bytes} bytes; {MAX_PLAN_SIZE_BYTES} are allowed.")
    try:
        values, is_json = _ANY.decode(text), True
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        values, is_json = None, False
    if is_json:
        text = text.replace("\t", " ")  # between JSON's words; YAML takes none there
    marks: Marks = {}
    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        read = _Reader(events, marks).document()
    except yaml.MarkedYAMLError as error:
        _refuse_yaml(error)
    except yaml.YAMLError as error:  # a character that no text has
        raise InvalidPlan(f"The plan is neither YAML nor JSON: {str(error).splitlines()[0]}.") from error
    return (values if is_json else read), marks


class _Reader:
    """Builds values from the events of YAML's parser.

    Args:
        events: From the start of the stream.
        marks: Filled.
    """

    def __init__(self, events: Iterator[Any], marks: Marks) -> None:
        self._events = events
        self._marks = marks

    def document(self) -> Any:
        """Return the value of the one document."""
        next(self._events)  # the start of the stream
        first = next(self._events)
        if not isinstance(first, yaml.DocumentStartEvent):
            raise InvalidPlan("The plan is empty.")
        value = self._value(next(self._events), "", 0)
        next(self._events)  # the end of the document
        after = next(self._events)
        if isinstance(after, yaml.DocumentStartEvent):
            _refuse(after, "a plan is one document.")
        return value

    def _value(self, event: Any, path: str, depth: int) -> Any:
        self._marks[path] = _mark(event)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            _refuse(event, "anchors and aliases are not read; write the value where it belongs.")
        if event.tag is not None:
            _refuse(event, "tags are not read.")
        if depth > MAX_DEPTH:
            _refuse(event, f"no plan is nested more than {MAX_DEPTH} deep.")
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(path, depth)
        return self._mapping(path, depth)

    def _list(self, path: str, depth: int) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, f"{path}[{len(values)}]", depth + 1))
        return values

    def _mapping(self, path: str, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
                _refuse(event, "a field's name is a plain text.")
            name = str(event.value)
            if name in values:
                _refuse(event, f"the field {name!r:.80} stands here twice.")
            values[name] = self._value(next(self._events), f"{path}.{name}".lstrip("."), depth + 1)
        return values


def _scalar(event: Any) -> Any:
    text = event.value
    if event.style is not None:  # in quotes or a block: a text
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.match(text):
        return int(text)
    return float(text) if _FLOAT.match(text) else text


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def _refuse(event: Any, why: str) -> NoReturn:
    line, column = _mark(event)
    raise InvalidPlan(f"Line {line}, column {column}: {why}")


def _refuse_yaml(error: yaml.MarkedYAMLError) -> NoReturn:
    where = error.problem_mark or error.context_mark
    place = f"Line {where.line + 1}, column {where.column + 1}: " if where else ""
    why = ", ".join(part for part in (error.problem, error.context) if part)
    raise InvalidPlan(f"{place}the plan is neither YAML nor JSON: {why}.") from error
