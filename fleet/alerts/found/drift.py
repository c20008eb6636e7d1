"""What is found of drift: one finding for a cause, however many devices drift, in however many features.

A lens that is dirty moves the mean, the contrast and the sharpness of its pictures, and then the answers:
several features of one model on the same devices are one finding. Features belong together if at least half
of the devices that drift in the one with fewer drift in the other too. The finding is named by the feature
that alarmed first, so that it stays the same alert while others follow.

What acts on it depends on what moved. If **answers** moved on many devices of one version, the version is
taken back, from those that run it and from nobody else: `muster rollback`. If **inputs** moved, an older
version of the model would see the same; then the device on which they moved most is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from fleet.alerts import commands
from fleet.alerts.alert import Finding, Severity, finding
from fleet.alerts.thresholds import Thresholds
from fleet.drift.fleet_alarms import FleetAlarm

OUTPUTS = "output."
COMMON_SHARE = 0.5


def by_cause(alarms: Iterable[FleetAlarm]) -> list[list[FleetAlarm]]:
    """Return alarms of one model, those of the same devices together, the first that alarmed at the head."""
    groups: list[list[FleetAlarm]] = []
    for alarm in sorted(alarms, key=lambda alarm: (alarm.since_s or math.inf, alarm.feature)):
        group = next((group for group in groups if _are_of_one_cause(group[0], alarm)), None)
        if group is None:
            groups.append([alarm])
        else:
            group.append(alarm)
    return groups


def drift_finding(
    alarms: Sequence[FleetAlarm],
    *,
    previous: Callable[[str, int], int | None],
    by_version: Mapping[int, int],
    thresholds: Thresholds,
) -> Finding:
    """Return what is found of the drift of a model that has one cause.

    Args:
        alarms: Of one model, from `by_cause`; each of all devices that alarm in its feature.
        previous: Returns the version of a model that one can go back to from a version; None for none.
        by_version: How many devices run each version of the model.
        thresholds: Where alerts begin.
    """
    first = alarms[0]
    versions = sorted({version for alarm in alarms for version in alarm.versions})
    version = versions[0] if len(versions) == 1 else None
    devices = sorted({device for alarm in alarms for device in alarm.devices})
    share, features = f"{len(devices)} of {first.of_devices} devices", _told(alarms)
    title = f"drift of {first.model} in {features}"
    many = len(devices) >= thresholds.critical_share * first.of_devices
    back = previous(first.model, version) if version is not None else None
    command = commands.device_show(first.strongest)
    is_of_answers = many and any(_is_of_many_answers(alarm, thresholds) for alarm in alarms)
    if version is not None and back is not None and is_of_answers:
        command = commands.lead_away(first.model, version, back, f"{title} on {share}", by_version)
    named = f"{first.model} version {version}" if version is not None else first.model
    return finding(
        "drift",
        first.model,
        first.feature,
        severity=Severity.CRITICAL if many else Severity.WARNING,
        title=title,
        sentence=f"{share} drift in {features} of {named}.",
        evidence=[f"most of all {alarm.strongest}, {alarm.evidence}" for alarm in alarms],
        devices=devices,
        affected=dict.fromkeys(trait.sentence for alarm in alarms for trait in alarm.shared),
        hold_s=thresholds.group_wait_s,
        command=command,
        inspect=commands.fleet_alarms(first.model),
        path=f"/api/v1/drift?model={first.model}",
        model=first.model,
        version=version,
    )


def _are_of_one_cause(first: FleetAlarm, other: FleetAlarm) -> bool:
    fewer = min(len(first.devices), len(other.devices))
    return len(set(first.devices) & set(other.devices)) >= COMMON_SHARE * fewer


def _is_of_many_answers(alarm: FleetAlarm, thresholds: Thresholds) -> bool:
    many = len(alarm.devices) >= thresholds.critical_share * alarm.of_devices
    return many and alarm.feature.startswith(OUTPUTS)


def _told(alarms: Sequence[FleetAlarm]) -> str:
    """Return the features; of more than three, how many there are besides."""
    names = [alarm.feature for alarm in alarms]
    if len(names) > 3:
        names = [*names[:2], f"{len(names) - 2} more features"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
