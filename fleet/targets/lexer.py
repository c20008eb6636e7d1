"""From text to words: names, texts in quotes, numbers and signs, each with its place.

Everything else is refused here, with line and column. The grammar over the words stands in
`fleet.targets.parser`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from fleet.protocol.errors import InvalidTarget

MAX_LENGTH = 8192
"""Most characters of a target."""
MAX_NUMBER = 2**53
"""Greatest number; beyond, not every whole number can be told from its neighbour."""


class WordKind(StrEnum):
    """What a word is."""

    NAME = "name"
    TEXT = "text"
    NUMBER = "number"
    SIGN = "sign"
    END = "end"


class Word(NamedTuple):
    """A word of a target.

    Attributes:
        kind: What it is.
        text: The name or sign; of a text in quotes what it stands for, of a number its digits.
        place: Where it begins, in characters from 0.
    """

    kind: WordKind
    text: str
    place: int


_WORD = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*)
    | (?P<number>-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_.])
    | (?P<sign>==|!=|<=|>=|<|>|\(|\)|\[|\]|,)
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "'": "'", "\\": "\\"}
_MEANT = {"=": "==", "&": "and", "|": "or", "!": "not", "~": "like", "{": "[", "}": "]"}


def words(source: str) -> Iterator[Word]:
    """Yield the words of a target, the end of it last.

    Args:
        source: The text.

    Raises:
        InvalidTarget: It is too long, or has something that is no word.
    """
    if len(source) > MAX_LENGTH:
        raise InvalidTarget(f"The target has {len(source):,} characters; {MAX_LENGTH:,} are allowed.")
    place = 0
    while place < len(source):
        match = _WORD.match(source, place)
        if match is None:
            raise _no_word(source, place)
        kind, text = match.lastgroup, match.group()
        if kind == "text":
            yield Word(WordKind.TEXT, _unquoted(source, text, place), place)
        elif kind != "space":
            yield Word(WordKind(str(kind)), text, place)
        place = match.end()
    yield Word(WordKind.END, "", place)


def refused(source: str, place: int, what: str, remedy: str = "") -> InvalidTarget:
    """Return the error for a place in a target.

    Args:
        source: The whole text.
        place: In characters from 0.
        what: What is wrong there, one sentence.
        remedy: What to write in place of it.
    """
    before = source[:place]
    line, column = before.count("\n") + 1, place - (before.rfind("\n") + 1) + 1
    return InvalidTarget(f"Line {line}, column {column} of the target: {what}", remedy=remedy)


def _no_word(source: str, place: int) -> InvalidTarget:
    sign = source[place]
    if sign in "\"'":
        return refused(source, place, "A text is not closed.", f"Put {sign} at its end.")
    if sign.isdigit() or sign in "-.":
        return refused(source, place, "A number cannot be read.", "Put quotes around versions and texts.")
    meant = _MEANT.get(sign)
    return refused(source, place, f"{sign!r} means nothing here.", f"Write `{meant}`." if meant else "")


def _unquoted(source: str, quoted: str, place: int) -> str:
    def replaced(match: re.Match[str]) -> str:
        escape = match.group(1)
        if escape in _ESCAPED:
            return _ESCAPED[escape]
        if len(escape) > 1:
            return chr(int(escape[1:], 16))
        at = place + 1 + match.start()
        raise refused(source, at, f"{match.group()!r} stands for nothing.", r"Write \\ for a backslash.")

    text = _ESCAPE.sub(replaced, quoted[1:-1])
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise refused(source, place, "A text holds half of a character.")
    return text
