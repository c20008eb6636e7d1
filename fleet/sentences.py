"""Pieces of sentences for people, whatever they are about.

A reason that somebody typed stands beside sentences of ours: it is made a whole one, on one line.
"""

from __future__ import annotations

import math
from decimal import Decimal

_ENDS = (".", "!", "?", "…")
_JOINERS = "\u200c\u200d"
"""Not printable by themselves; they shape letters of several scripts, and emoji."""
_HUGE = 10**15
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def devices(number: int) -> str:
    """Return how many devices these are."""
    return counted(number, "device")


def counted(number: int, noun: str) -> str:
    """Return how many these are, of what has a plural in -s."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def number(value: float) -> str:
    """Return a number as people write it, such as ``31,622,400`` or ``0.05``; a huge one has an exponent."""
    if isinstance(value, int) and abs(value) < _HUGE:
        return f"{value:,}"
    try:
        told = float(value)
    except OverflowError:
        return f"{'-' if value < 0 else ''}10^308 and more"
    if not math.isfinite(told) or abs(told) >= _HUGE:
        return f"{told:g}"
    return f"{int(told):,}" if told.is_integer() else f"{Decimal(f'{told:.6g}'):,f}"


def duration(duration_s: float, digits: int = 1) -> str:
    """Return a duration in the unit that suits it, such as ``2.5 h``."""
    for unit_s, name in _UNITS:
        if duration_s >= 2 * unit_s:
            return f"{duration_s / unit_s:.{digits}f} {name}"
    return f"{max(0.0, duration_s):.0f} s"


def rough_duration(duration_s: float) -> str:
    """Return a duration as people say it, such as ``3 h``."""
    return duration(duration_s, digits=0)


def whole(text: str) -> str:
    """Return a text with the end of a sentence."""
    return text if text.endswith(_ENDS) else f"{text}."


def one_line(text: str) -> str:
    """Return a text as one line of what can be seen; empty if nothing of it can.

    Line breaks, control codes and whatever else is not printable become spaces, and spaces that follow one
    another a single one.
    """
    shown = "".join(letter if letter.isprintable() or letter in _JOINERS else " " for letter in text)
    line = " ".join(shown.split())
    return line if line.strip(f"{_JOINERS} ") else ""


def by_whom(by: str, reason: str) -> str:
    """Return the end of a sentence that tells who did something, and why if they said so."""
    why = one_line(reason)
    return whole(f"{by}: {why}" if why else by)
