"""What is found of devices: a large share offline, unhealthy or throttled, and those in quarantine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from fleet.alerts import commands
from fleet.alerts.alert import MOST_EVIDENCE, Finding, Severity, finding
from fleet.alerts.thresholds import Thresholds
from fleet.protocol.board import BoardWindow


class UnwellDevices(msgspec.Struct, frozen=True):
    """The devices of one health.

    Attributes:
        count: How many there are.
        reasons: Why, by device; for the first of them at least.
    """

    count: int
    reasons: dict[str, str]


def offline_finding(offline: UnwellDevices, devices: int, thresholds: Thresholds) -> Finding | None:
    """Return a finding if too large a share of the devices is offline.

    Args:
        offline: Those that are.
        devices: How many there are in all.
        thresholds: Where alerts begin.
    """
    if not offline.count or offline.count < thresholds.offline_share * devices:
        return None
    return _finding("offline", offline, devices, thresholds.offline_hold_s, thresholds)


def unhealthy_finding(unhealthy: UnwellDevices, devices: int, thresholds: Thresholds) -> Finding | None:
    """Return a finding if too large a share of the devices is unhealthy; args like `offline_finding`."""
    if not unhealthy.count or unhealthy.count < thresholds.unhealthy_share * devices:
        return None
    return _finding("unhealthy", unhealthy, devices, thresholds.unhealthy_hold_s, thresholds)


def throttled_finding(
    boards: Mapping[str, BoardWindow], count: int, devices: int, thresholds: Thresholds
) -> Finding | None:
    """Return a finding if heat or a short power supply slows too large a share of the devices.

    Args:
        boards: What the first of those devices told of their boards, by id.
        count: How many there are.
        devices: How many devices there are in all.
        thresholds: Where alerts begin.
    """
    if not count or count < thresholds.throttled_share * devices:
        return None
    slowed = UnwellDevices(count, {name: _board(board) for name, board in boards.items()})
    return _finding("throttled", slowed, devices, thresholds.throttled_hold_s, thresholds)


def quarantine_finding(quarantined: Mapping[str, str], thresholds: Thresholds) -> Finding | None:
    """Return a finding if devices are in quarantine.

    Args:
        quarantined: Why, by device.
        thresholds: Where alerts begin.
    """
    if not quarantined:
        return None
    names = sorted(quarantined)
    return finding(
        "quarantine",
        severity=Severity.WARNING,
        title=f"{_devices(names)} in quarantine",
        sentence=f"{_devices(names)} sent more than the hub takes; their messages are refused for a while.",
        evidence=[f"{name}: {quarantined[name]}" for name in names[:MOST_EVIDENCE]],
        devices=names,
        hold_s=thresholds.group_wait_s,
        command=commands.device_lift_quarantine(names[0]),
        inspect=commands.device_show(names[0]),
        path=f"/api/v1/devices/{names[0]}",
    )


def _finding(
    health: str, unwell: UnwellDevices, devices: int, hold_s: float, thresholds: Thresholds
) -> Finding:
    named = sorted(unwell.reasons)
    many = unwell.count >= thresholds.critical_share * devices
    share = f"{unwell.count} of {devices} devices"
    reasons = [f"{name}: {unwell.reasons[name]}" for name in named[:MOST_EVIDENCE]]
    first = commands.device_show(named[0]) if named else commands.device_list()
    found = finding(
        health,
        severity=Severity.CRITICAL if many else Severity.WARNING,
        title=f"{share} {health}",
        sentence=f"{share} are {health} ({unwell.count / devices:.0%}).",
        evidence=reasons or [f"{share} {health}"],
        devices=named,
        hold_s=hold_s,
        command=first,
        inspect=commands.fleet_health(),
        path="/api/v1/fleet/health",
    )
    counted = msgspec.structs.replace(found.matter, device_count=unwell.count)
    return msgspec.structs.replace(found, matter=counted)


def _devices(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} devices"


def _board(board: BoardWindow) -> str:
    hottest = board.temperature_millidegrees
    heat = "" if hottest is None else f", {hottest.greatest / 1000:.1f} °C at most"
    return f"throttled at {board.throttled} of {board.readings} readings{heat}"
