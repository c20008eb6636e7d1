"""What is found of versions that were revoked: that devices still run them.

A revocation takes nothing from a device, for nothing would replace it; somebody has to bring another version.
"""

from __future__ import annotations

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
        devices: How many devices run it.
        previous: The proven version that they go back to; None if there is none.
        is_alone: Whether no device runs another version that is newer than that one.
    """

    model: str
    version: int
    why: str
    devices: int
    previous: int | None
    is_alone: bool


def revoked_finding(revoked: RevokedVersion, thresholds: Thresholds) -> Finding:
    """Return what is found of devices that run a version which was revoked.

    Args:
        revoked: The version.
        thresholds: Where alerts begin.
    """
    named = f"{revoked.model} version {revoked.version}"
    runs = "1 device runs" if revoked.devices == 1 else f"{revoked.devices:,} devices run"
    target = commands.running(revoked.model, revoked.version)
    inspect = commands.fleet_devices(target)
    command = inspect
    if revoked.previous is not None:
        only = None if revoked.is_alone else target
        reason = f"version {revoked.version} was revoked"
        command = commands.rollback(revoked.model, revoked.previous, reason, only)
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
