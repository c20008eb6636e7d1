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

import numpy as np

from fleet.rollout.gates.counts import (
    BAD,
    BAD_SQUARED,
    CELLS,
    CROSS,
    DEVICES,
    TOTAL,
    TOTAL_SQUARED,
    WINDOWS,
    Floats,
    ratio,
)

LEAST_CORRELATION = 0.0005
"""The answers of one device are worth 2,000 independent ones at most."""


def correlation(parts: Floats, devices: Floats) -> Floats:
    """Return rho, from `LEAST_CORRELATION` to 1.

    Args:
        parts: Each arm of each class in each span, for each has a share of its own; the last two axes are
            the part and the field (`fleet.rollout.gates.counts`).
        devices: How many there are beyond the first of each arm of each class.
    """
    number, total, squared = parts[..., DEVICES], parts[..., TOTAL], parts[..., TOTAL_SQUARED]
    share, variance = _moments(parts)
    squares = parts[..., BAD_SQUARED] - 2.0 * share * parts[..., CROSS] + share * share * squared
    excess = (np.maximum(0.0, squares) - variance * total) * ratio(number, number - 1.0)
    tells = (number > 1.0) & (squared > total)
    possible = np.where(tells, variance * (squared - total), 0.0).sum(axis=-1)
    found = ratio(np.where(tells, excess, 0.0).sum(axis=-1), possible)
    raised = found * (1.0 + 2.0 / np.sqrt(np.maximum(1.0, devices)))
    return np.where(devices < 1.0, LEAST_CORRELATION, np.clip(raised, LEAST_CORRELATION, 1.0))


def weight(parts: Floats, rho: Floats) -> Floats:
    """Return how many independent answers one answer of each part is worth, above 0, at most 1.

    Args:
        parts: Of which; the last axis is the field (`fleet.rollout.gates.counts`).
        rho: From `correlation`.
    """
    total, devices = parts[..., TOTAL], np.maximum(1.0, parts[..., DEVICES])
    uneven = ratio(parts[..., TOTAL_SQUARED], total) * parts[..., WINDOWS] / devices
    each = np.maximum(total / devices, uneven)
    return 1.0 / (1.0 + np.maximum(0.0, each - 1.0) * rho)


def _moments(parts: Floats) -> tuple[Floats, Floats]:
    """Return mean and variance of one answer; an answer of a histogram is the number of its cell."""
    share, cells = ratio(parts[..., BAD], parts[..., TOTAL]), parts[..., CELLS:]
    if not cells.shape[-1]:
        return share, share * (1.0 - share)
    square = ratio(cells @ np.arange(cells.shape[-1]) ** 2.0, parts[..., TOTAL])
    return share, np.maximum(0.0, square - share * share)
