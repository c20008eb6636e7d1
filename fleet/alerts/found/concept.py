"""What is found of concept drift: one finding for each version, however many devices' labels say so.

What is right has changed, or inputs became harder than the model can bear; `fleet.quality.concept` has the
test. An older version would hardly be better at what has changed, so nothing is taken back: the quality of
the version is looked at, and a new one trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fleet.alerts import commands
from fleet.alerts.alert import Finding, Severity, finding
from fleet.alerts.thresholds import Thresholds
from fleet.quality.concept import ConceptState


class ConceptDrift(NamedTuple):
    """What tests have found of one version.

    Attributes:
        model: Name of the model.
        version: Its version.
        together: The test of all devices together, if its alarm is raised; else None.
        devices: The tests of devices whose alarm is raised, by id.
        of_devices: How many devices run the version.
    """

    model: str
    version: int
    together: ConceptState | None
    devices: Mapping[str, ConceptState]
    of_devices: int


def concept_finding(drift: ConceptDrift, thresholds: Thresholds) -> Finding:
    """Return what is found of the concept drift of a version.

    Args:
        drift: At least one alarm.
        thresholds: Where alerts begin.
    """
    named = f"{drift.model} version {drift.version}"
    share = f"{len(drift.devices)} of {drift.of_devices} devices" if drift.devices else "all devices together"
    evidence = [_evidence("all devices", drift.together)] if drift.together else []
    evidence += [_evidence(device_id, state) for device_id, state in sorted(drift.devices.items())[:5]]
    many = drift.together is not None or len(drift.devices) >= thresholds.critical_share * drift.of_devices
    return finding(
        "concept_drift",
        drift.model,
        str(drift.version),
        severity=Severity.CRITICAL if many else Severity.WARNING,
        title=f"concept drift of {named}",
        sentence=f"Labels say that {named} is wrong too often on {share}.",
        evidence=evidence,
        devices=sorted(drift.devices),
        hold_s=thresholds.group_wait_s,
        command=commands.fleet_quality(drift.model),
        inspect=commands.fleet_quality(drift.model, by="device"),
        path=f"/api/v1/fleet/quality?model={drift.model}",
        model=drift.model,
        version=drift.version,
    )


def _evidence(who: str, state: ConceptState) -> str:
    return f"{who}: {state.last_wrong} of the last {state.last_labelled} labelled answers are wrong"
