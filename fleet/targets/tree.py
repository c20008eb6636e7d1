"""The tree of a target, and what devices can be asked for.

A target is a test of one device. Operands are what a comparison has on its left side; each has a *kind*,
which says what it may be compared with (`fleet.targets.parser` refuses the rest, with the position):

========  =======================================  ========================================================
kind      operands                                 compared with
========  =======================================  ========================================================
TEXT      ``id``, ``hardware``, ``hw``,            text, exactly, or by ``like``; a number, if the text is
          ``architecture``, every attribute        one; ``< <= > >=`` a number or a version such as "1.20"
VERSION   ``agent_version``, ``runtime("…")``      a version, by its leading numbers; by ``like`` as text
NUMBER    ``memory_bytes``, ``free_bytes``,        a number
          ``version("…")``
STATUS    ``health``                               the name of a health status
FLAG      ``online``                               ``true`` and ``false``; or it stands alone
========  =======================================  ========================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TypeAlias

import msgspec


class Kind(StrEnum):
    """What an operand may be compared with, see the head of this file."""

    TEXT = "text"
    VERSION = "version"
    NUMBER = "number"
    STATUS = "status"
    FLAG = "flag"


class BuiltIn(StrEnum):
    """What every device has, under names that no attribute can take away."""

    ID = "id"
    HARDWARE = "hardware"
    HW = "hw"
    ARCHITECTURE = "architecture"
    AGENT_VERSION = "agent_version"
    ONLINE = "online"
    HEALTH = "health"
    MEMORY_BYTES = "memory_bytes"
    FREE_BYTES = "free_bytes"

    @property
    def kind(self) -> Kind:
        """What it may be compared with."""
        return _KINDS.get(self, Kind.TEXT)


_KINDS = {
    BuiltIn.AGENT_VERSION: Kind.VERSION,
    BuiltIn.ONLINE: Kind.FLAG,
    BuiltIn.HEALTH: Kind.STATUS,
    BuiltIn.MEMORY_BYTES: Kind.NUMBER,
    BuiltIn.FREE_BYTES: Kind.NUMBER,
}


class Operator(StrEnum):
    """How an operand is compared with one value."""

    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="
    LIKE = "like"
    NOT_LIKE = "not like"

    @property
    def is_order(self) -> bool:
        """Whether it asks which of the two is greater."""
        return self in {Operator.LESS, Operator.AT_MOST, Operator.GREATER, Operator.AT_LEAST}


Value: TypeAlias = str | int | float
"""A literal; ``true`` and ``false`` are `bool`, which is an `int`."""


class Attribute(msgspec.Struct, frozen=True):
    """An attribute that a device was enrolled with."""

    name: str

    @property
    def kind(self) -> Kind:
        """What it may be compared with."""
        return Kind.TEXT


class Fact(msgspec.Struct, frozen=True):
    """Something that every device has."""

    name: BuiltIn

    @property
    def kind(self) -> Kind:
        """What it may be compared with."""
        return self.name.kind


class VersionOf(msgspec.Struct, frozen=True):
    """The version of a model that a device runs."""

    model: str

    @property
    def kind(self) -> Kind:
        """What it may be compared with."""
        return Kind.NUMBER


class RuntimeOf(msgspec.Struct, frozen=True):
    """The version of an inference runtime that a device has."""

    name: str

    @property
    def kind(self) -> Kind:
        """What it may be compared with."""
        return Kind.VERSION


Operand: TypeAlias = Attribute | Fact | VersionOf | RuntimeOf


class Comparison(msgspec.Struct, frozen=True):
    """An operand beside one value."""

    operand: Operand
    operator: Operator
    value: Value


class Membership(msgspec.Struct, frozen=True):
    """An operand is one of several values, or ``negated``: none of them."""

    operand: Operand
    values: tuple[Value, ...]
    negated: bool = False


class Tagged(msgspec.Struct, frozen=True):
    """A device has a tag."""

    tag: str


class Drifts(msgspec.Struct, frozen=True):
    """A device's drift alarm names a feature, of any model, in the version that it runs."""

    feature: str


class Runs(msgspec.Struct, frozen=True):
    """A device runs a model, in whatever version."""

    model: str


class Has(msgspec.Struct, frozen=True):
    """A device has a value for an operand."""

    operand: Operand


class Both(msgspec.Struct, frozen=True):
    """All parts hold; there are at least two, and none of them is `Both`."""

    parts: tuple[Target, ...]


class Either(msgspec.Struct, frozen=True):
    """One part holds at least; there are at least two, and none of them is `Either`."""

    parts: tuple[Target, ...]


class Negation(msgspec.Struct, frozen=True):
    """The part does not hold."""

    part: Target


Target: TypeAlias = Comparison | Membership | Tagged | Runs | Drifts | Has | Both | Either | Negation


def tests(target: Target) -> Iterator[Target]:
    """Yield what a target is made of: its comparisons and predicates."""
    match target:
        case Both(parts=parts) | Either(parts=parts):
            for part in parts:
                yield from tests(part)
        case Negation(part=part):
            yield from tests(part)
        case _:
            yield target


def read_of_devices(target: Target) -> set[Operand]:
    """Return everything that a target has to know of a device: what it compares, and what it asks for."""
    return operands(target) | {test.operand for test in tests(target) if isinstance(test, Has)}


def operands(target: Target) -> set[Operand]:
    """Return everything that a target compares, so that names which nobody has can be refused.

    Args:
        target: The tree; ``has(…)`` is left out, for it asks whether there is such a thing.
    """
    return {test.operand for test in tests(target) if isinstance(test, Comparison | Membership)}
