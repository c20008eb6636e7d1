"""Intervals for an accuracy of which the mean and the variance of an estimate are known.

The interval is Wilson's (1927), with the number of independent answers that would know the accuracy as well:

    n = m (1 - m) / variance

Unlike mean plus or minus 1.96 standard errors it stays within 0 to 1, and does not collapse where every
answer was right (Brown, Cai and DasGupta 2001, "Interval estimation for a binomial proportion").
"""

from __future__ import annotations

import math
from typing import NamedTuple

MISSED_RATE = 0.05
"""How probable it is that an interval leaves out the truth."""
DEVIATIONS = 1.959964
"""Standard deviations on either side of a normal mean that leave out `MISSED_RATE`."""


class Estimate(NamedTuple):
    """An accuracy that was estimated, with its interval."""

    value: float
    lower: float
    upper: float


def estimated(value: float, mean: float, variance: float) -> Estimate:
    """Return an estimate with its interval.

    Args:
        value: The estimate.
        mean: The same, kept off 0 and 1 by what is not known: it says how much one answer varies.
        variance: Of the estimate, above 0.
    """
    answers = mean * (1.0 - mean) / variance
    squared = DEVIATIONS**2
    centre = (value + squared / (2.0 * answers)) / (1.0 + squared / answers)
    spread = value * (1.0 - value) / answers + squared / (4.0 * answers**2)
    half = DEVIATIONS * math.sqrt(max(0.0, spread)) / (1.0 + squared / answers)
    return Estimate(value, max(0.0, min(value, centre - half)), min(1.0, max(value, centre + half)))
