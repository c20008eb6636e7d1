"""Reading a plan from plain values, whatever they were written in."""

from __future__ import annotations

from typing import Any

import msgspec

from fleet.protocol.errors import InvalidPlan
from fleet.rollout.plans.checks import check_plan
from fleet.rollout.plans.plan import Plan
from fleet.rollout.plans.wording import refusal

msgspec.json.Decoder(Plan)  # two threads that were the first to use a type crash; now it is known


def plan_of(values: Any) -> Plan:
    """Return the plan that plain values describe, checked.

    Args:
        values: Mappings, lists, texts, numbers, truth values and None, as JSON has them.

    Raises:
        InvalidPlan: They cannot be understood, carried out or judged; it carries the field.
    """
    try:
        plan = msgspec.convert(values, Plan)
    except (msgspec.ValidationError, RecursionError) as error:
        raise refused_by_type(error, values=values) from error
    check_plan(plan)
    return plan


def refused_by_type(error: Exception, kind: type = Plan, values: Any = None) -> InvalidPlan:
    """Return in our words what msgspec refused, with the field it names.

    Args:
        error: From msgspec.
        kind: What was read.
        values: What it was read from; None if nobody knows.
    """
    refused = refusal(str(error), kind, values)
    place = f"{refused.field}: " if refused.field else f"The {kind.__name__.lower()} cannot be understood: "
    return InvalidPlan(f"{place}{refused.why}.", remedy=refused.remedy, field=refused.field)
