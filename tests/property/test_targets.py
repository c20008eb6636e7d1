"""Targets: what is printed parses to the same tree, and devices are judged as the language says."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.health import HealthStatus
from fleet.protocol.errors import InvalidTarget
from fleet.targets.evaluation import DeviceProfile, compile_target
from fleet.targets.parser import parse_target
from fleet.targets.printing import print_target
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

NAMES = st.sampled_from(["site", "hw", "floor", "my key", "and", "id", "tag", "x.y-z", "0", "é", "LIKE"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6) | st.sampled_from(
    ["lyon", "3", "1.20", "1.20.0", "-2.5", 'say "hi"', "a\\b", "\n", "abab"]
)
VERSIONS = st.sampled_from(["1", "1.20", "1.20.0", "2.0.1", "0"])
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(-100, 100, allow_nan=False) | st.sampled_from([0, 3, 2.5])
FEATURES = st.sampled_from(["input.mean", "input.std", 'say "hi"'])
OPERANDS: st.SearchStrategy[Operand] = st.one_of(
    st.builds(Attribute, NAMES),
    st.builds(Fact, st.sampled_from(BuiltIn)),
    st.builds(VersionOf, NAMES),
    st.builds(RuntimeOf, NAMES),
)
ORDERS = [operator for operator in Operator if operator.is_order]


def _values(operand: Operand) -> st.SearchStrategy[Value]:
    """Values that an operand may equal."""
    match operand.kind:
        case Kind.TEXT:
            return TEXTS | NUMBERS
        case Kind.VERSION:
            return VERSIONS
        case Kind.NUMBER:
            return NUMBERS
        case Kind.STATUS:
            return st.sampled_from([status.value for status in HealthStatus])
        case Kind.FLAG:
            return st.booleans()


@st.composite
def _comparisons(draw: st.DrawFn) -> Target:
    operand = draw(OPERANDS)
    values = _values(operand)
    choices = ["equal", "member"]
    choices += ["order"] if operand.kind not in {Kind.FLAG, Kind.STATUS} else []
    choices += ["like"] if operand.kind in {Kind.TEXT, Kind.VERSION} else []
    match draw(st.sampled_from(choices)):
        case "equal":
            return Comparison(
                operand, draw(st.sampled_from([Operator.EQUAL, Operator.UNEQUAL])), draw(values)
            )
        case "member":
            return Membership(
                operand, tuple(draw(st.lists(values, min_size=1, max_size=3))), draw(st.booleans())
            )
        case "order":
            values = VERSIONS | NUMBERS if operand.kind is Kind.TEXT else values
            return Comparison(operand, draw(st.sampled_from(ORDERS)), draw(values))
    pattern = draw(st.text("ab*?.1", min_size=1, max_size=6))
    return Comparison(operand, draw(st.sampled_from([Operator.LIKE, Operator.NOT_LIKE])), pattern)


def _joined(inner: st.SearchStrategy[Target]) -> st.SearchStrategy[Target]:
    def flat(kind: type[Both | Either]) -> st.SearchStrategy[Target]:
        parts = inner.filter(lambda part: not isinstance(part, kind))
        return st.lists(parts, min_size=2, max_size=3).map(lambda found: kind(tuple(found)))

    return st.one_of(flat(Both), flat(Either), st.builds(Negation, inner))


TARGETS = st.recursive(
    st.one_of(
        _comparisons(),
        st.builds(Tagged, TEXTS),
        st.builds(Runs, NAMES),
        st.builds(Drifts, FEATURES),
        st.builds(Has, OPERANDS),
    ),
    _joined,
    max_leaves=8,
)
PROFILES = st.builds(
    DeviceProfile,
    id=st.sampled_from(["cam-1", "lyon", "3"]),
    attributes=st.dictionaries(NAMES, TEXTS | st.text("ab1.", max_size=5), max_size=4),
    hardware=st.sampled_from(["", "lyon", "pi4"]),
    architecture=st.sampled_from(["aarch64", "abab"]),
    agent_version=st.sampled_from(["1.20", "1.20.1rc1", "2.0", "unknown"]),
    memory_bytes=st.sampled_from([0, 3, 2**31]),
    free_bytes=st.sampled_from([0, 3, 2**31]),
    runtimes=st.dictionaries(NAMES, st.sampled_from(["1.20", "1.20.0", "0.9+cpu", "odd"]), max_size=3),
    online=st.booleans(),
    health=st.sampled_from([status.value for status in HealthStatus]),
    tags=st.frozensets(TEXTS, max_size=3),
    versions=st.dictionaries(NAMES, st.sampled_from([0, 1, 3]), max_size=3),
    drifting=st.frozensets(FEATURES, max_size=2),
)


@given(TARGETS)
def test_what_is_printed_parses_to_the_same_tree(target: Target) -> None:
    assert parse_target(print_target(target)) == target


@given(TARGETS, PROFILES)
def test_a_device_is_judged_as_a_naive_reading_of_the_tree_does(
    target: Target, device: DeviceProfile
) -> None:
    assert compile_target(target)(device) is _naive(target, device)


@given(st.text() | st.text("site()[]\"'=!<>andortilkeg*1.5-, \n\\u", max_size=60))
def test_any_text_is_a_target_or_is_refused_with_its_place(source: str) -> None:
    try:
        target = parse_target(source)
    except InvalidTarget as error:
        assert re.match(r"Line \d+, column \d+ of the target: ", error.message)
    else:
        assert parse_target(print_target(target)) == target


@given(TARGETS, st.integers(0, 200), st.sampled_from(['"', ")", "(", "]", "==", "not", "\ud800", "\\", "5"]))
def test_a_target_with_something_put_into_it_raises_nothing_else(
    target: Target, place: int, what: str
) -> None:
    text = print_target(target)
    damaged = text[:place] + what + text[place:]
    try:
        parse_target(damaged)
    except InvalidTarget as error:
        assert error.code == "invalid_target"


def _naive(target: Target, device: DeviceProfile) -> bool:
    """Judge a device as slowly and plainly as the reference page explains it."""
    match target:
        case Both(parts=parts):
            return all(_naive(part, device) for part in parts)
        case Either(parts=parts):
            return any(_naive(part, device) for part in parts)
        case Negation(part=part):
            return not _naive(part, device)
        case Tagged(tag=tag):
            return tag in device.tags
        case Runs(model=model):
            return device.versions.get(model) is not None
        case Drifts(feature=feature):
            return any(name == feature for name in device.drifting)
        case Has(operand=operand):
            return _found(operand, device) is not None
        case Membership(operand=operand, values=values, negated=negated):
            return any(_equal(operand, device, value) for value in values) is not negated
    found = _found(target.operand, device)
    match target.operator:
        case Operator.EQUAL:
            return _equal(target.operand, device, target.value)
        case Operator.UNEQUAL:
            return not _equal(target.operand, device, target.value)
        case Operator.LIKE:
            return isinstance(found, str) and _matches(found, str(target.value))
        case Operator.NOT_LIKE:
            return not (isinstance(found, str) and _matches(found, str(target.value)))
    return _in_order(found, target.operator, target.value)


def _in_order(found: str | int | None, how: Operator, value: Value) -> bool:
    left: list[float] | None
    if isinstance(value, str):
        left, right = _numbers(str(found)), _numbers(value)
    else:
        number = _number(found)
        left, right = None if number is None else [number], [value]
    if found is None or not left:
        return False
    answers = {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}
    return answers[how.value]


def _equal(operand: Operand, device: DeviceProfile, value: Value) -> bool:
    found = _found(operand, device)
    if found is None:
        return False
    if operand.kind is Kind.VERSION:
        return _numbers(str(found)) == _numbers(str(value))
    if isinstance(value, str):
        return found == value
    return _number(found) == value


def _numbers(version: str) -> list[float]:
    leading = re.match(r"\d+(\.\d+)*", version)
    if leading is None:
        return []
    return [float(part) for part in re.sub(r"(\.0+)+$", "", leading.group()).split(".")]


def _number(found: str | int | None) -> float | None:
    if isinstance(found, str):
        return float(found) if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", found) else None
    return found


def _matches(text: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def _found(operand: Operand, device: DeviceProfile) -> str | int | None:
    match operand:
        case Attribute(name=name):
            return device.attributes.get(name)
        case VersionOf(model=model):
            return device.versions.get(model)
        case RuntimeOf(name=name):
            return device.runtimes.get(name)
        case Fact(name=BuiltIn.HW):
            return device.attributes.get("hw", device.hardware) or None
    value: str | int | bool = getattr(device, operand.name.value)
    return None if value == "" else value


@pytest.mark.parametrize(
    "missing", ['site == "x"', 'site in ["x"]', 'site like "*"', "site < 3", 'site >= "1"']
)
def test_what_a_device_lacks_compares_as_false_and_its_negation_as_true(missing: str) -> None:
    device = DeviceProfile("cam-1")
    assert not compile_target(parse_target(missing))(device)
    assert compile_target(parse_target(f"not {missing}"))(device)
