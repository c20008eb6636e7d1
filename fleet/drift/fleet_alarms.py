"""The drift alarms of a fleet: one for each model and feature, over all devices that alarm.

A device alarms on its own (`fleet.drift.alarms`). People ask of the fleet: which devices, since when, how
strong, and what do they share (`fleet.drift.affected`)?
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from fleet.drift.affected import FleetTraits, SharedTrait, shared_traits, told
from fleet.drift.alarms import FeatureDrift


class DeviceAlarm(msgspec.Struct, frozen=True):
    """A feature that the alarm of one device names.

    Attributes:
        device_id: The device.
        model: The model,
        version: and the version of it that the device was looked at with.
        drift: The last look at the feature.
        since_s: When the alarm was raised; None where that is not known.
        until_s: Up to when the device was looked at last; None where that is not known.
    """

    device_id: str
    model: str
    version: int
    drift: FeatureDrift
    since_s: float | None = None
    until_s: float | None = None


class FleetAlarm(msgspec.Struct, frozen=True):
    """What alarms at one feature of one model.

    Attributes:
        model: The model.
        feature: The feature, see `fleet.drift.features`.
        versions: Versions that the devices run, rising.
        devices: The devices that alarm, by id.
        of_devices: How many run the model.
        since_s: When the first of these alarms was raised; None where that is not known.
        until_s: Up to when the devices were looked at last; None where that is not known.
        strongest: The device with the most evidence,
        evidence: and its last look, for people.
        shared: What the devices share, see `fleet.drift.affected`; empty where nothing stands out.
    """

    model: str
    feature: str
    versions: tuple[int, ...]
    devices: tuple[str, ...]
    of_devices: int
    since_s: float | None
    until_s: float | None
    strongest: str
    evidence: str
    shared: tuple[SharedTrait, ...]

    @property
    def sentence(self) -> str:
        """The alarm, for people."""
        number = len(self.devices)
        return (
            f"{number} of {self.of_devices} devices drift in {self.feature} of {self.model};"
            f" most of all {self.strongest}, {self.evidence}; {told(self.shared)}"
        )


def fleet_alarms(alarms: Iterable[DeviceAlarm], fleets: Mapping[str, FleetTraits]) -> tuple[FleetAlarm, ...]:
    """Gather the alarms of devices, by model and feature, the one with the most devices first.

    Args:
        alarms: Of devices, each feature once.
        fleets: The devices that run each model, with their traits.
    """
    by_feature: defaultdict[tuple[str, str], list[DeviceAlarm]] = defaultdict(list)
    for alarm in alarms:
        by_feature[alarm.model, alarm.drift.feature].append(alarm)
    found = [
        _gathered(model, feature, of_feature, fleets.get(model) or FleetTraits({}))
        for (model, feature), of_feature in sorted(by_feature.items())
    ]
    return tuple(sorted(found, key=lambda alarm: -len(alarm.devices)))


def _gathered(model: str, feature: str, alarms: list[DeviceAlarm], fleet: FleetTraits) -> FleetAlarm:
    devices = tuple(sorted({alarm.device_id for alarm in alarms}))
    strongest = max(alarms, key=lambda alarm: (alarm.drift.evidence, alarm.device_id))
    return FleetAlarm(
        model=model,
        feature=feature,
        versions=tuple(sorted({alarm.version for alarm in alarms})),
        devices=devices,
        of_devices=max(len(devices), len(fleet.device_ids)),
        since_s=min((a.since_s for a in alarms if a.since_s is not None), default=None),
        until_s=max((a.until_s for a in alarms if a.until_s is not None), default=None),
        strongest=strongest.device_id,
        evidence=strongest.drift.sentence,
        shared=shared_traits(fleet, devices),
    )
