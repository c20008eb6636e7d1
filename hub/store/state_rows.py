"""What the store keeps of how devices are, see `hub.store.protocols.states`."""

from __future__ import annotations

import msgspec

from fleet.health import HealthPolicy, HealthStatus


class StateRules(msgspec.Struct, frozen=True):
    """What states are kept by; with other rules everything is judged anew.

    Attributes:
        policy: Where the lines of health are drawn.
        group_by: Attributes of devices whose values are counted, see `fleet.cohorts`.
    """

    policy: HealthPolicy
    group_by: tuple[str, ...] = ()


class DeviceState(msgspec.Struct, frozen=True):
    """How a device was when it was judged last.

    Attributes:
        device_id: The device.
        status: Its health.
        reasons: Why it is not HEALTHY.
    """

    device_id: str
    status: HealthStatus
    reasons: tuple[str, ...]


class GroupCount(msgspec.Struct, frozen=True):
    """The devices with one value.

    Attributes:
        value: The value; None for devices that have none.
        devices: How many there are.
        by_status: Of each health; those that nobody has are left out.
    """

    value: str | None
    devices: int
    by_status: dict[HealthStatus, int]


class Groups(msgspec.Struct, frozen=True):
    """Devices by value.

    Attributes:
        groups: The largest ones, by falling number of devices.
        others: All further ones together; None if there are none.
        values: How many groups there are in all.
    """

    groups: tuple[GroupCount, ...]
    others: GroupCount | None
    values: int
