"""Cohorts: the devices that have one value of one attribute, ``site=lyon`` or ``hardware=pi4``.

Devices are grouped by what they say of themselves, `OF_DEVICES`, and by the attributes that the hub's setting
``group_by`` names. An attribute that an operator gave a device has precedence over what the device says.

What is kept of a cohort is kept for long, and devices can say anything. So there are at most `MOST_VALUES` of
an attribute, of which one device brings at most `MOST_BROUGHT`; whatever comes beyond that counts as `OTHER`.
One device that says something else each time does not use up what others need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

OF_DEVICES = ("hardware", "architecture")
MOST_VALUES = 1000
MOST_BROUGHT = 16
OTHER = "(other)"


def grouping(group_by: Iterable[str]) -> tuple[str, ...]:
    """Return every attribute that devices are grouped by, each once.

    Args:
        group_by: The hub's setting.
    """
    return tuple(dict.fromkeys((*OF_DEVICES, *group_by)))


def cohorts_of(
    attributes: Mapping[str, str], *, hardware: str, architecture: str, group_by: Iterable[str]
) -> dict[str, str]:
    """Return the cohorts that a device belongs to: its value of each attribute that it has.

    Args:
        attributes: That operators gave it.
        hardware: As the device says; empty where it does not.
        architecture: As the device says.
        group_by: The hub's setting.
    """
    values = {"hardware": hardware, "architecture": architecture, **attributes}
    return {name: values[name] for name in grouping(group_by) if values.get(name)}


def is_admitted(value: str, device_id: str, brought_by: Mapping[str, str]) -> bool:
    """Return whether a value of an attribute is a cohort of its own.

    Args:
        value: The value.
        device_id: The device that has it.
        brought_by: The values that are, each with the device that had it first.
    """
    if value in brought_by:
        return True
    if len(brought_by) >= MOST_VALUES:
        return False
    return sum(first == device_id for first in brought_by.values()) < MOST_BROUGHT
