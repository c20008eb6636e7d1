r"""The parser of targets: recursive descent over this grammar (EBNF, ISO/IEC 14977), ``not`` binding closest.

::

    target     = either ;
    either     = both , { "or" , both } ;
    both       = test , { "and" , test } ;
    test       = "not" , test | "(" , either , ")" | predicate | comparison ;
    predicate  = "tag" , "(" , text , ")"                      (* the device has the tag *)
               | "runs" , "(" , text , ")"                     (* it runs some version of the model *)
               | "drifts" , "(" , text , ")"                   (* its drift alarm names the feature *)
               | "has" , "(" , operand , ")"                   (* it has a value for the operand *)
               | flag ;                                        (* such as online *)
    comparison = operand , ( "==" | "!=" | "<" | "<=" | ">" | ">=" ) , value
               | operand , [ "not" ] , "like" , text           (* "*" any characters, "?" one *)
               | operand , [ "not" ] , "in" , "[" , value , { "," , value } , "]" ;
    operand    = name                                          (* a built-in, else an attribute *)
               | "attr" , "(" , text , ")"                     (* an attribute, whatever its name *)
               | "version" , "(" , text , ")"                  (* of the model that it runs *)
               | "runtime" , "(" , text , ")" ;                (* version of an inference runtime *)
    value      = text | number | "true" | "false" ;
    name       = letter , { letter | digit | "." | "-" } ;     (* letters are ASCII, and "_" *)
    text       = '"' , { character | escape } , '"' | "'" , { character | escape } , "'" ;
    escape     = "\" , ( '"' | "'" | "\" | "n" | "r" | "t" | "u" , 4 * hex digit ) ;
    number     = [ "-" ] , digits , [ "." , digits ] , [ ( "e" | "E" ) , [ "+" | "-" ] , digits ] ;

``and or not in like true false`` are read in lower or upper case and are no names. What may be compared with
what is checked here as well (`fleet.targets.tree`): a target that was accepted always has an answer.
"""

from __future__ import annotations

import difflib
import math
import re

from fleet.health import HealthStatus
from fleet.protocol.errors import InvalidTarget
from fleet.targets.lexer import MAX_NUMBER, Word, WordKind, refused, words
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

MAX_DEPTH = 40
"""Most parentheses and ``not`` within one another."""
MAX_TESTS = 100
"""Most comparisons and predicates: each is made of every device. A list of values is one."""
KEYWORDS = frozenset({"and", "or", "not", "in", "like", "true", "false"})
PREDICATES = ("tag", "runs", "drifts", "has")
FUNCTIONS = ("attr", "version", "runtime")

_NAMED: dict[str, type[Tagged | Runs | Drifts]] = {"tag": Tagged, "runs": Runs, "drifts": Drifts}
_BUILT_INS = frozenset(BuiltIn)
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,7}", re.ASCII)
_FOR_PEOPLE = {
    Kind.VERSION: 'a version in quotes, such as "1.20"',
    Kind.NUMBER: "a number",
    Kind.STATUS: f"one of {', '.join(HealthStatus)}, in quotes",
    Kind.FLAG: "true or false",
}


def parse_target(source: str) -> Target:
    """Return the tree of a target.

    Args:
        source: As an engineer wrote it.

    Raises:
        InvalidTarget: It cannot be understood; the message has line and column.
    """
    return _Parser(source).target()


class _Parser:
    """Reads one target.

    Args:
        source: Its text.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._words = list(words(source))
        self._next = 0
        self._depth = 0
        self._tests = 0

    def target(self) -> Target:
        """Read all of it."""
        if self._word().kind is WordKind.END:
            raise self._refused("The target is empty.", 'Write a test, such as site == "lyon".')
        target = self._either()
        if self._word().kind is not WordKind.END:
            raise self._refused(
                f"{_shown(self._word())} was not expected here.", "Join tests by `and` or `or`."
            )
        return target

    def _either(self) -> Target:
        parts = [self._both()]
        while self._takes_keyword("or"):
            parts.append(self._both())
        flat = [inner for part in parts for inner in (part.parts if isinstance(part, Either) else (part,))]
        return flat[0] if len(flat) == 1 else Either(tuple(flat))

    def _both(self) -> Target:
        parts = [self._test()]
        while self._takes_keyword("and"):
            parts.append(self._test())
        flat = [inner for part in parts for inner in (part.parts if isinstance(part, Both) else (part,))]
        return flat[0] if len(flat) == 1 else Both(tuple(flat))

    def _test(self) -> Target:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._refused(f"Parentheses and `not` are more than {MAX_DEPTH} deep.")
        try:
            if self._takes_keyword("not"):
                return Negation(self._test())
            if self._takes_sign("("):
                inner = self._either()
                self._expect_sign(")")
                return inner
            self._tests += 1
            if self._tests > MAX_TESTS:
                raise self._refused(f"There are more than {MAX_TESTS} tests.", "Use `in` for many values.")
            return self._predicate() or self._comparison()
        finally:
            self._depth -= 1

    def _predicate(self) -> Target | None:
        word = self._word()
        if word.kind is not WordKind.NAME or not self._is_call() or word.text not in PREDICATES:
            return None
        self._next += 2
        target: Target
        if word.text == "has":
            target = Has(self._operand())
        else:
            target = _NAMED[word.text](self._text("a name in quotes"))
        self._expect_sign(")")
        return target

    def _comparison(self) -> Target:
        place = self._word().place
        operand = self._operand()
        negated = self._takes_keyword("not")
        if self._takes_keyword("in"):
            return Membership(operand, self._values(operand), negated)
        if self._takes_keyword("like"):
            return self._like(operand, place, negated=negated)
        sign = self._word()
        if negated or sign.kind is not WordKind.SIGN or sign.text not in set(Operator):
            if operand.kind is Kind.FLAG and not negated:
                return Comparison(operand, Operator.EQUAL, value=True)
            raise self._refused(
                f"{_shown(sign)} was not expected here.",
                "Compare by ==, !=, <, <=, >, >=, `in` or `like`; a single = is no comparison.",
            )
        self._next += 1
        operator = Operator(sign.text)
        if operator.is_order and operand.kind in {Kind.FLAG, Kind.STATUS}:
            raise self._refused(f"{operand.kind.capitalize()} values have no order.", at=sign.place)
        return Comparison(operand, operator, self._value(operand, operator))

    def _like(self, operand: Operand, place: int, *, negated: bool) -> Target:
        if operand.kind not in {Kind.TEXT, Kind.VERSION}:
            raise self._refused(
                "`like` is for texts.", f"Compare it with {_FOR_PEOPLE[operand.kind]}.", place
            )
        operator = Operator.NOT_LIKE if negated else Operator.LIKE
        return Comparison(operand, operator, self._text('a pattern in quotes, such as "pi*"'))

    def _values(self, operand: Operand) -> tuple[Value, ...]:
        self._expect_sign("[")
        values = [self._value(operand, Operator.EQUAL)]
        while self._takes_sign(","):
            values.append(self._value(operand, Operator.EQUAL))
        self._expect_sign("]")
        return tuple(values)

    def _operand(self) -> Operand:
        word = self._word()
        if word.kind is not WordKind.NAME or word.text.lower() in KEYWORDS:
            remedy = "A comparison begins with the attribute." if word.kind is not WordKind.END else ""
            raise self._refused(f"An attribute or test was expected, not {_shown(word)}.", remedy)
        if self._is_call():
            return self._call(word)
        self._next += 1
        return Fact(BuiltIn(word.text)) if word.text in _BUILT_INS else Attribute(word.text)

    def _call(self, word: Word) -> Operand:
        if word.text not in FUNCTIONS:
            near = difflib.get_close_matches(word.text.lower(), [*PREDICATES, *FUNCTIONS], 1)
            known = ", ".join(f"{name}(…)" for name in (*PREDICATES, *FUNCTIONS))
            guess = f"Did you mean {near[0]}(…)? " if near else ""
            raise self._refused(f"There is no function {word.text!r:.40} here.", f"{guess}There are {known}.")
        self._next += 2
        text = self._text("a name in quotes")
        self._expect_sign(")")
        if word.text == "attr":
            return Attribute(text)
        return VersionOf(text) if word.text == "version" else RuntimeOf(text)

    def _text(self, what: str) -> str:
        word = self._word()
        if word.kind is not WordKind.TEXT or not word.text:
            raise self._refused(f"{what.capitalize()} was expected, not {_shown(word)}.")
        self._next += 1
        return word.text

    def _value(self, operand: Operand, operator: Operator) -> Value:
        word = self._word()
        value = self._literal(word)
        expected = _why_not(operand, operator, value)
        if expected:
            raise self._refused(f"{_shown(word)} cannot be compared here.", f"Compare with {expected}.")
        self._next += 1
        return value.upper() if operand.kind is Kind.STATUS and isinstance(value, str) else value

    def _literal(self, word: Word) -> Value:
        if word.kind is WordKind.TEXT:
            return word.text
        if word.kind is WordKind.NAME and word.text.lower() in {"true", "false"}:
            return word.text.lower() == "true"
        if word.kind is not WordKind.NUMBER:
            remedy = f'Write "{word.text}", if it is a text.' if word.kind is WordKind.NAME else ""
            raise self._refused(f"A value was expected, not {_shown(word)}.", remedy)
        number = float(word.text)
        if not math.isfinite(number) or abs(number) > MAX_NUMBER:
            raise self._refused(f"Numbers go up to {MAX_NUMBER}.")
        return int(number) if number.is_integer() else number

    def _word(self) -> Word:
        return self._words[self._next]

    def _is_call(self) -> bool:
        following = self._words[self._next + 1]
        return following.kind is WordKind.SIGN and following.text == "("

    def _takes_keyword(self, keyword: str) -> bool:
        word = self._word()
        found = word.kind is WordKind.NAME and word.text.lower() == keyword
        self._next += found
        return found

    def _takes_sign(self, sign: str) -> bool:
        word = self._word()
        found = word.kind is WordKind.SIGN and word.text == sign
        self._next += found
        return found

    def _expect_sign(self, sign: str) -> None:
        if not self._takes_sign(sign):
            raise self._refused(f"{sign!r} was expected, not {_shown(self._word())}.")

    def _refused(self, what: str, remedy: str = "", at: int | None = None) -> InvalidTarget:
        return refused(self._source, self._word().place if at is None else at, what, remedy)


def is_version(text: str) -> bool:
    """Tell whether a text is a version as targets write them: numbers with points between."""
    return _VERSION.fullmatch(text) is not None


def _why_not(operand: Operand, operator: Operator, value: Value) -> str:
    """Return what the operand is compared with, if not with this value."""
    kind = operand.kind
    match kind:
        case Kind.FLAG:
            fits = isinstance(value, bool)
        case Kind.STATUS:
            fits = isinstance(value, str) and value.upper() in set(HealthStatus)
        case Kind.NUMBER:
            fits = not isinstance(value, str | bool)
        case Kind.VERSION:
            fits = isinstance(value, str) and is_version(value)
        case Kind.TEXT:
            fits = not isinstance(value, bool)
            if fits and operator.is_order and isinstance(value, str) and not is_version(value):
                return 'a number, or a version in quotes, such as "1.20"'
            return "" if fits else f'a text, such as "{str(value).lower()}", or a number'
    return "" if fits else _FOR_PEOPLE[kind]


def _shown(word: Word) -> str:
    return "the end" if word.kind is WordKind.END else f"{word.text!r:.40}"
