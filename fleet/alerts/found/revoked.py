"""What is found of versions that were revoked: that devices still run them.

A revocation takes nothing from a device, for nothing would replace it; somebody has to bring another version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fleet.alerts import commands
from fleet.alerts.alert import Finding, Severity, finding
from fleet.alerts.thresholds import Thresholds


class RevokedVersion(NamedTuple):
    """A version that was revoked and is run.

    Attributes:
        model: Name of the model.
        version: Its version.
        why: By whom and why it was revoked, a sentence.
        previous: The proven version that its devices go back to; None if there is none.
        by_version: How many devices run each version of the model.
    """

    model: str
    version: int
    why: str
    previous: int | None
    by_version: Mapping[int, int]


def revoked_finding(revoked: RevokedVersion, thresholds: Thresholds) -> Finding:
    """Return what is found of devices that run a version which was revoked.

    Args:
        revoked: The version.
        thresholds: Where alerts begin.
    """
    named = f"{revoked.model} version {revoked.version}"
    devices = revoked.by_version[revoked.version]
    runs = "1 device runs" if devices == 1 else f"{devices:,} devices run"
    inspect = commands.fleet_devices(commands.running(revoked.model, revoked.version))
    command = inspect
    if revoked.previous is not None:
        reason = f"version {revoked.version} was revoked"
        command = commands.lead_away(
            revoked.model, revoked.version, revoked.previous, reason, revoked.by_version
        )
    return finding(
        "revoked_version",
        revoked.model,
        str(revoked.version),
        severity=Severity.CRITICAL,
        title=f"devices run {named}, which was revoked",
        sentence=f"{runs} {named}, which was revoked.",
        evidence=[revoked.why],
        hold_s=thresholds.group_wait_s,
        command=command,
        inspect=inspect,
        path=f"/api/v1/models/{revoked.model}/versions/{revoked.version}",
        model=revoked.model,
        version=revoked.version,
    )
