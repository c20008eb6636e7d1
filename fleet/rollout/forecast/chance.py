"""How likely a verdict is, from the evidence that is to be expected.

What is observed differs from what is expected. If the truth is mu standard errors from a bound, then what is
found is Z ~ N(mu, 1) of them, and the logarithm of the gate's e-value about

    Z² / 2 - COST

for the stakes on effects that are not there, on both arms, cost so much. The expected evidence has the
e-value of Z = mu, so mu follows from it, and

    P( e-value >= needed )  =  Phi( mu - z )        z = sqrt( 2 (ln needed + COST) )

**One group left out.** A verdict has to stand whichever of `GROUPS` groups of devices is left out
(`fleet.rollout.gates.groups`). What is left knows less, mu sqrt(7/8); and as it differs with the group by
1 / sqrt(7) standard errors, the least of eight is `LEAST_OF_EIGHT` of these below their mean.

That the gate looks often makes it a little more likely, that a class of devices leans to harm a little less;
both are left out. ``tests/property/test_rollout_forecast.py`` holds it against simulated stages.
"""

from __future__ import annotations

import math

from fleet.rollout.gates.groups import GROUPS

COST = 2.0
LEAST_OF_EIGHT = 1.42
_LEFT = math.sqrt((GROUPS - 1) / GROUPS)
_LOWER = LEAST_OF_EIGHT / math.sqrt(GROUPS - 1)


def chance_of(log_e: float, log_needed: float, *, in_groups: bool) -> float:
    """Return how likely an e-value is at least what is needed, 0 to 1.

    Args:
        log_e: The logarithm of that of the expected evidence.
        log_needed: The logarithm of what is needed.
        in_groups: Whether it has to be so whichever group of devices is left out.
    """
    if log_e <= 0.0:  # too little to tell how far the truth is from the bound, or on its other side
        return 0.0
    mu = math.sqrt(2.0 * (log_e + COST))
    if in_groups:
        mu = mu * _LEFT - _LOWER
    z = mu - math.sqrt(2.0 * (log_needed + COST))
    return 0.5 * math.erfc(-z / math.sqrt(2.0))
