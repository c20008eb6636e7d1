"""Axes: from values to places on a page, and the round values to mark on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_FEWEST_MARKS = 3


@dataclass(frozen=True)
class Axis:
    """A range of values laid over a range of places.

    Attributes:
        low: Value at the start.
        high: Value at the end, greater than ``low``.
        start: Place of ``low``.
        end: Place of ``high``; less than ``start`` on an axis that points up.
        ticks: Values to mark.
        logarithmic: Whether equal distances are equal ratios.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return self.start + (at - low) / (high - low) * (self.end - self.start)


def linear_axis(values: Iterable[float], start: float, end: float, *, marks: int = 5) -> Axis:
    """Return an axis that holds all values with a margin, marked at round steps.

    Args:
        values: At least one.
        start: Place of the low end.
        end: Place of the high end.
        marks: About how many values to mark.
    """
    found = list(values)
    low, high = min(found), max(found)
    margin = (high - low) * 0.12 or max(abs(high) * 0.01, 1e-3)
    low, high = low - margin, high + margin
    step = _round_step((high - low) / marks)
    first, last = math.ceil(low / step), math.floor(high / step)
    return Axis(low, high, start, end, tuple(number * step for number in range(first, last + 1)))


def log_axis(values: Iterable[float], start: float, end: float) -> Axis:
    """Return a logarithmic axis that holds all values with a margin, marked at 1, 2, 5, 10, 20 and so on.

    Where that gives too few marks, every digit gets one.

    Args:
        values: At least one, all above 0.
        start: Place of the low end.
        end: Place of the high end.
    """
    found = list(values)
    low, high = min(found) / 1.35, max(found) * 1.35
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in ((1, 2, 5), range(1, 10)):
        if len(ticks) < _FEWEST_MARKS:
            marks = (digit * 10.0**decade for decade in decades for digit in digits)
            ticks = [mark for mark in marks if low <= mark <= high]
    return Axis(low, high, start, end, tuple(ticks), logarithmic=True)


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in _STEPS if step * power >= least * (1 - 1e-9))
