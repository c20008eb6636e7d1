"""Cohorts: the devices that have one value of one attribute, ``site=lyon`` or ``hardware=pi4``.

Devices are grouped by what they say of themselves, `OF_DEVICES`, and by the attributes that the hub's setting
``group_by`` names. An attribute that an operator gave a device has precedence over what the device says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

OF_DEVICES = ("hardware", "architecture")


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
