"""From the tree back to text: one text for a tree, which parses to the same tree again.

Equal targets that were written differently (spaces, quotes, needless parentheses) so become one text.
"""

from __future__ import annotations

import re

from fleet.targets.parser import FUNCTIONS, KEYWORDS, PREDICATES
from fleet.targets.tree import (
    Attribute,
    Both,
    BuiltIn,
    Comparison,
    Drifts,
    Either,
    Fact,
    Has,
    Membership,
    Negation,
    Operand,
    Runs,
    RuntimeOf,
    Tagged,
    Target,
    Value,
    VersionOf,
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*")
_RESERVED = {*BuiltIn, *PREDICATES, *FUNCTIONS}
_TO_ESCAPE = re.compile(r'[\x00-\x1f\x7f"\\]')
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def print_target(target: Target) -> str:
    """Return the canonical text of a target."""
    match target:
        case Either(parts=parts):
            return " or ".join(print_target(part) for part in parts)
        case Both(parts=parts):
            return " and ".join(
                _inside(part) if isinstance(part, Either) else print_target(part) for part in parts
            )
        case Negation(part=part):
            return f"not {_inside(part) if isinstance(part, Either | Both) else print_target(part)}"
        case Comparison():
            return f"{_operand(target.operand)} {target.operator} {_value(target.value)}"
        case Membership(values=values):
            listed = ", ".join(_value(value) for value in values)
            return f"{_operand(target.operand)} {'not in' if target.negated else 'in'} [{listed}]"
        case Tagged(tag=tag):
            return f"tag({_value(tag)})"
        case Runs(model=model):
            return f"runs({_value(model)})"
        case Drifts(feature=feature):
            return f"drifts({_value(feature)})"
        case Has(operand=operand):
            return f"has({_operand(operand)})"


def _inside(target: Target) -> str:
    return f"({print_target(target)})"


def _operand(operand: Operand) -> str:
    match operand:
        case Fact(name=name):
            return name.value
        case VersionOf(model=model):
            return f"version({_value(model)})"
        case RuntimeOf(name=name):
            return f"runtime({_value(name)})"
        case Attribute(name=name):
            plain = _NAME.fullmatch(name) and name not in _RESERVED and name.lower() not in KEYWORDS
            return name if plain else f"attr({_value(name)})"


def _value(value: Value) -> str:
    if isinstance(value, str):
        return f'"{_TO_ESCAPE.sub(_escaped, value)}"'
    return str(value).lower()  # True and False are bool; 1E-7 and 1e-7 are the same number


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    return _ESCAPES.get(character) or f"\\u{ord(character):04x}"
