"""Reading a plan: from JSON bytes, or from plain values that came from anywhere."""

from __future__ import annotations

from typing import Any

import msgspec

from fleet.protocol.errors import InvalidPlan
from fleet.rollout.plans.checks import check_plan
from fleet.rollout.plans.plan import MAX_PLAN_SIZE_BYTES, Plan
from fleet.rollout.plans.wording import refusal

_DECODER = msgspec.json.Decoder(Plan)  # made once: two threads that were the first to use a type crash


def decode_plan(data: bytes) -> Plan:
    """Return the plan in JSON bytes, checked.

    Raises:
        InvalidPlan: It cannot be understood, could not be carried out, or not be judged.
    """
    if len(data) > MAX_PLAN_SIZE_BYTES:
        raise InvalidPlan(f"The plan has {len(data)} bytes; {MAX_PLAN_SIZE_BYTES} are allowed.")
    try:
        plan = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refused_by_type(error) from error
    check_plan(plan)
    return plan


def plan_of(values: Any) -> Plan:
    """Return the plan that plain values describe, checked.

    Args:
        values: Mappings, lists, texts, numbers, truth values and None, as JSON has them.

    Raises:
        InvalidPlan: As in `decode_plan`; it carries the field.
    """
    try:
        plan = msgspec.convert(values, Plan)
    except (msgspec.ValidationError, RecursionError) as error:
        raise refused_by_type(error) from error
    check_plan(plan)
    return plan


def encode_plan(plan: Plan) -> bytes:
    """Return the plan as JSON."""
    return msgspec.json.encode(plan)


def refused_by_type(error: Exception, kind: type = Plan) -> InvalidPlan:
    """Return in our words what msgspec refused, with the field it names.

    Args:
        error: From msgspec.
        kind: What was read.
    """
    refused = refusal(str(error), kind)
    place = f"{refused.field}: " if refused.field else f"The {kind.__name__.lower()} cannot be understood: "
    return InvalidPlan(f"{place}{refused.why}.", remedy=refused.remedy, field=refused.field)
