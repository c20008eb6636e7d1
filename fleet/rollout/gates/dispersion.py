"""How much a device's many answers are worth, where the answers of one device are alike.

Devices differ: one camera looks into the sun. Its thousand answers are not a thousand draws of the fleet's
share of bad ones, and a test that takes them for that finds harm where the lot fell on a hard place. With
an intra-class correlation rho (two answers of one device, against two of different devices), n answers of
each device are worth

    n / (1 + (n - 1) rho)        so never more than 1 / rho

independent ones: Kish's design effect (1965, "Survey Sampling"). Counts are divided by it before any bet is
made.

Where some devices answer much more than others, the arm is worth less: for n stands the sum of n² over the
sum of n of windows, times the windows of a device. Where devices send equally many windows, none weighs more
than 1 / rho answers; for one that claims what it likes see `groups`.

rho is estimated from windows, by moments. With x bad of n in a window, p the arm's share and v the variance
of one answer (p (1 - p); of a histogram that of its cells' numbers),

    E[ (x - n p)² ] = v n + v n (n - 1) rho
    rho = ( sum (x - n p)²  -  sum v n )  /  sum v n (n - 1)

summed over windows, arms and strata, each around its own share. That takes sums of x², x n and n² and no
memory of single devices. What varies between the windows of one device counts as if it varied between
devices, which is the careful side; only what differs between the spans of a stage (`spans`)
does not, for each is taken around its own share. As p is taken from the same devices, the excess of an arm
with D devices is multiplied by D / (D - 1); an arm with one device says nothing of rho. The fewer devices,
the less is known: the estimate is raised by the factor 1 + 2 / sqrt(D - 1). It is at least
`LEAST_CORRELATION`, for no two devices are exactly alike.

The e-values are exact for independent answers. With devices that differ they rest on this estimate, which
is consistent in the number of devices; simulation shows that false alarms stay in their budget (``make
bench-gates``, ``tests/property/test_gates.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from fleet.rollout.gates.evidence import Tally

LEAST_CORRELATION = 0.0005
"""The answers of one device are worth 2,000 independent ones at most."""


class Part(NamedTuple):
    """One side of a comparison, or of one class of devices in it.

    Attributes:
        devices: That contributed.
        windows: That were counted.
        tally: What they said.
    """

    devices: int
    windows: int
    tally: Tally

    def minus(self, other: Part) -> Part:
        """Return this one without another that is part of it."""
        if not other.windows and not other.tally.total:
            return self
        devices, windows = self.devices - other.devices, self.windows - other.windows
        return Part(max(0, devices), max(0, windows), self.tally.minus(other.tally))


def correlation(parts: Iterable[Part], devices: int) -> float:
    """Return rho, from `LEAST_CORRELATION` to 1.

    Args:
        parts: Each arm of each class in each span, for each has a share of its own.
        devices: How many there are beyond the first of each arm of each class.
    """
    excess = possible = 0.0
    for number, _, tally in parts:
        pairs = tally.total_squared - tally.total
        if number < 2 or pairs <= 0.0:
            continue
        share, variance = _moments(tally)
        squares = tally.bad_squared - 2.0 * share * tally.cross + share * share * tally.total_squared
        excess += (max(0.0, squares) - variance * tally.total) * number / (number - 1)
        possible += variance * pairs
    if possible <= 0.0 or devices < 1:
        return LEAST_CORRELATION
    raised = excess / possible * (1.0 + 2.0 / math.sqrt(devices))
    return min(1.0, max(LEAST_CORRELATION, raised))


def weight(part: Part, rho: float) -> float:
    """Return how many independent answers one answer is worth, above 0, at most 1.

    Args:
        part: Of which.
        rho: From `correlation`.
    """
    tally, devices = part.tally, max(1, part.devices)
    if tally.total <= 0:
        return 1.0
    uneven = tally.total_squared / tally.total * part.windows / devices
    each = max(tally.total / devices, uneven)
    return 1.0 / (1.0 + max(0.0, each - 1.0) * rho)


def _moments(tally: Tally) -> tuple[float, float]:
    """Return mean and variance of one answer."""
    share = tally.bad / tally.total
    if not tally.cells:
        return share, share * (1.0 - share)
    square = sum(cell * cell * number for cell, number in tally.cells.items()) / tally.total
    return share, max(0.0, square - share * share)
