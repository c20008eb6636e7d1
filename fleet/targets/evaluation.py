"""Which devices a target means: a tree becomes one function, made once and called for each device.

**What a device lacks.** Logic has two values. A comparison with an attribute, model or runtime that a device
does not have is false, whatever the value. ``!=``, ``not in`` and ``not like`` are exactly ``not`` of ``==``,
``in`` and ``like``, and so true there, as in the label selectors of Kubernetes: ``site != "lyon"`` means
devices without a site too, ``has(site) and site != "lyon"`` does not. The same goes for a text that is not a
number or version where one is asked for: ``floor >= 3`` is false for a floor of "attic".

Versions are compared by their leading numbers, 1.20 and 1.20.0 alike: 1.20.1rc1 counts as 1.20.1.

Patterns are matched without going back over what was matched (atomic groups), in time proportional to the
text for each part of the pattern, so that none can be made to take long.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

from fleet.protocol.requirement import version_key
from fleet.targets.tree import (
    Attribute,
    Both,
    BuiltIn,
    Comparison,
    Drifts,
    Either,
    Fact,
    Has,
    Kind,
    Membership,
    Negation,
    Operand,
    Operator,
    Runs,
    RuntimeOf,
    Tagged,
    Target,
    Value,
    VersionOf,
)


class DeviceProfile(msgspec.Struct, frozen=True):
    """What targets can ask of a device.

    Attributes:
        id: Its id.
        attributes: What it was enrolled with.
        hardware: As in `fleet.protocol.messages.Capabilities`, like the next four; empty if not known.
        architecture: Likewise.
        agent_version: Likewise.
        memory_bytes: Likewise.
        free_bytes: Likewise.
        runtimes: Likewise.
        online: Whether it is connected.
        health: The name of its `fleet.health.HealthStatus`.
        tags: What operators tagged it with.
        versions: The version of each model that answers on it.
        drifting: The features, of any model, that its drift alarm names.
    """

    id: str
    attributes: dict[str, str] = {}
    hardware: str = ""
    architecture: str = ""
    agent_version: str = ""
    memory_bytes: int = 0
    free_bytes: int = 0
    runtimes: dict[str, str] = {}
    online: bool = False
    health: str = ""
    tags: frozenset[str] = frozenset()
    versions: dict[str, int] = {}
    drifting: frozenset[str] = frozenset()


Test: TypeAlias = Callable[[DeviceProfile], bool]
_Read: TypeAlias = Callable[[DeviceProfile], str | int | None]

_ORDERS: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.GREATER: operator.gt,
    Operator.AT_LEAST: operator.ge,
}
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)


def compile_target(target: Target) -> Test:
    """Return the test that a target makes of a device.

    Args:
        target: From `fleet.targets.parser.parse_target`.
    """
    match target:
        case Both(parts=parts):
            return _both([compile_target(part) for part in parts])
        case Either(parts=parts):
            return _either([compile_target(part) for part in parts])
        case Negation(part=part):
            return _negated(compile_target(part))
        case Tagged(tag=tag):
            return lambda device: tag in device.tags
        case Runs(model=model):
            return lambda device: model in device.versions
        case Drifts(feature=feature):
            return lambda device: feature in device.drifting
        case Has(operand=operand):
            read = _reader(operand)
            return lambda device: read(device) is not None
        case Membership(operand=operand, values=values, negated=negated):
            test = _membership(operand, values)
            return _negated(test) if negated else test
        case Comparison(operand=operand, operator=how, value=value):
            return _comparison(operand, how, value)


def _both(tests: list[Test]) -> Test:
    if len(tests) == 2:
        first, second = tests
        return lambda device: first(device) and second(device)
    return lambda device: all(test(device) for test in tests)


def _either(tests: list[Test]) -> Test:
    return lambda device: any(test(device) for test in tests)


def _negated(test: Test) -> Test:
    return lambda device: not test(device)


def _comparison(operand: Operand, how: Operator, value: Value) -> Test:
    match how:
        case Operator.EQUAL:
            return _membership(operand, (value,))
        case Operator.UNEQUAL:
            return _negated(_membership(operand, (value,)))
        case Operator.LIKE:
            return _like(operand, str(value))
        case Operator.NOT_LIKE:
            return _negated(_like(operand, str(value)))
    compare = _ORDERS[how]
    if isinstance(value, str):
        return _ordered(_reader(operand), _version, compare, _version(value))
    return _ordered(_reader(operand), _number, compare, value)


def _membership(operand: Operand, values: tuple[Value, ...]) -> Test:
    read = _reader(operand)
    if operand.kind is Kind.VERSION:
        wanted = {_version(str(value)) for value in values}
        return lambda device: (found := read(device)) is not None and _version(found) in wanted
    texts = frozenset(value for value in values if isinstance(value, str))
    numbers = frozenset(value for value in values if not isinstance(value, str))
    if not numbers:
        return lambda device: read(device) in texts
    return lambda device: (
        (found := read(device)) is not None and (found in texts or _number(found) in numbers)
    )


def _ordered(
    read: _Read,
    convert: Callable[[str | int], object],
    compare: Callable[[Any, Any], bool],
    wanted: object,
) -> Test:
    def test(device: DeviceProfile) -> bool:
        found = read(device)
        converted = None if found is None else convert(found)
        return converted is not None and compare(converted, wanted)

    return test


def _like(operand: Operand, pattern: str) -> Test:
    read, parts = _reader(operand), pattern.split("*")
    if "?" not in pattern and len(parts) == 2 and not parts[1]:
        start = parts[0]
        return lambda device: isinstance(found := read(device), str) and found.startswith(start)
    first, *middle = (re.escape(part).replace(r"\?", ".") for part in parts)
    if middle:
        *middle, last = middle
        first += "".join(f"(?>.*?{part})" for part in middle if part) + f".*{last}"
    matches = re.compile(first, re.DOTALL).fullmatch
    return lambda device: isinstance(found := read(device), str) and matches(found) is not None


@lru_cache(maxsize=4096)  # a fleet has few versions
def _version(text: str | int) -> tuple[int, ...] | None:
    numbers = version_key(str(text))
    while len(numbers) > 1 and not numbers[-1]:
        numbers = numbers[:-1]
    return numbers or None


def _number(value: str | int) -> float | None:
    if not isinstance(value, str):
        return value
    return float(value) if _NUMBER.fullmatch(value) else None


def _reader(operand: Operand) -> _Read:
    """Return what reads an operand of a device; None stands for what it lacks."""
    match operand:
        case Attribute(name=name):
            return lambda device: device.attributes.get(name)
        case VersionOf(model=model):
            return lambda device: device.versions.get(model)
        case RuntimeOf(name=name):
            return lambda device: device.runtimes.get(name)
        case Fact(name=BuiltIn.HW):
            return lambda device: device.attributes.get("hw", device.hardware) or None
        case Fact(name=built_in) if built_in.kind in {Kind.NUMBER, Kind.FLAG}:
            return operator.attrgetter(built_in.value)
    read = operator.attrgetter(operand.name.value)
    return lambda device: read(device) or None
