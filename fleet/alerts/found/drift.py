"""What is found of drift: one finding for each model and feature, however many devices drift.

What acts on it depends on what moved. If **answers** moved on many devices of one version, the version is
taken back: `muster rollback`. If **inputs** moved, an older version of the model would see the same; then
the device on which they moved most is looked at.
"""

from __future__ import annotations

from collections.abc import Callable

from fleet.alerts import commands
from fleet.alerts.alert import Finding, Severity, finding
from fleet.alerts.thresholds import Thresholds
from fleet.drift.fleet_alarms import FleetAlarm

OUTPUTS = "output."


def drift_finding(
    alarm: FleetAlarm, *, previous: Callable[[str, int], int | None], thresholds: Thresholds
) -> Finding:
    """Return what is found of the drift of a model in one feature.

    Args:
        alarm: Of all devices that alarm; there is at least one.
        previous: Returns the version of a model that one can go back to from a version; None for none.
        thresholds: Where alerts begin.
    """
    version = alarm.versions[0] if len(alarm.versions) == 1 else None
    share = f"{len(alarm.devices)} of {alarm.of_devices} devices"
    title = f"drift of {alarm.model} in {alarm.feature}"
    many = len(alarm.devices) >= thresholds.critical_share * alarm.of_devices
    back = previous(alarm.model, version) if version is not None else None
    command = commands.device_show(alarm.strongest)
    if many and back is not None and alarm.feature.startswith(OUTPUTS):
        command = commands.rollback(alarm.model, back, f"{title} on {share}")
    named = f"{alarm.model} version {version}" if version is not None else alarm.model
    return finding(
        "drift",
        alarm.model,
        alarm.feature,
        severity=Severity.CRITICAL if many else Severity.WARNING,
        title=title,
        sentence=f"{share} drift in {alarm.feature} of {named}.",
        evidence=[f"most of all {alarm.strongest}, {alarm.evidence}"],
        devices=alarm.devices,
        affected=[trait.sentence for trait in alarm.shared],
        hold_s=thresholds.group_wait_s,
        command=command,
        inspect=commands.fleet_alarms(alarm.model),
        path=f"/api/v1/drift?model={alarm.model}",
        model=alarm.model,
        version=version,
    )
