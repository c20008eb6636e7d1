"""How checks of a plan refuse: with the field, so that whoever read the plan can say the line."""

from __future__ import annotations

import math

from fleet.protocol.errors import InvalidPlan, InvalidTarget
from fleet.sentences import number


def check_number(
    field: str,
    value: float,
    low: float,
    high: float,
    *,
    where: str | None = None,
    above: bool = False,
    below: bool = False,
) -> None:
    """Check that a number is finite and within bounds.

    Args:
        field: Its place in the plan, such as ``stages[1].minimum_bake_s``.
        value: The number.
        low: Least.
        high: Greatest.
        where: What people are told instead of the field.
        above: Whether it must be above ``low``.
        below: Whether it must be below ``high``.

    Raises:
        InvalidPlan: It is not.
    """
    # A whole number may be too large for a float: it is compared as it is.
    inside = (isinstance(value, int) or math.isfinite(value)) and low <= value <= high
    if not inside or (above and value == low) or (below and value == high):
        left, right = ("above" if above else "from"), ("below" if below else "to")
        raise InvalidPlan(
            f"{where or field}: {number(value)} is not a number {left} {number(low)} {right} {number(high)}.",
            field=field,
        )


def refused_target(field: str, error: InvalidTarget) -> InvalidPlan:
    """Return that a target in a plan is refused; the message has the position inside the target.

    Args:
        field: Its place in the plan, such as ``stages[1].cohort``.
        error: Why.
    """
    return InvalidPlan(f"{field}: {error.message}", remedy=error.remedy, field=field)
