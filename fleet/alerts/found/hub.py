"""What is found of the hub itself: no broker, messages that it refuses, records that wait to be judged."""

from __future__ import annotations

from typing import Any

import msgspec

from fleet.alerts import commands
from fleet.alerts.alert import Finding, Severity, finding
from fleet.alerts.thresholds import Thresholds

_LOOK: dict[str, Any] = {"command": commands.fleet_health(), "inspect": commands.fleet_health()}


class HubFacts(msgspec.Struct, frozen=True):
    """What the hub knows of itself.

    Attributes:
        broker_connected: Whether it is connected to its broker.
        refused: Messages that it refused within ``refused_window_s``,
        taken: and those that it took in.
        last_refusal: Why it refused the newest; empty if not known.
        backlog: Records that were taken in and not judged yet.
    """

    broker_connected: bool
    refused: int = 0
    taken: int = 0
    last_refusal: str = ""
    backlog: int = 0


def hub_findings(facts: HubFacts, thresholds: Thresholds) -> list[Finding]:
    """Return what is found of the hub.

    Args:
        facts: What it knows of itself.
        thresholds: Where alerts begin.
    """
    found: list[Finding] = []
    if not facts.broker_connected:
        found.append(
            finding(
                "broker",
                severity=Severity.CRITICAL,
                title="the hub is without its broker",
                sentence="The hub is not connected to its MQTT broker: no device gets orders, none is heard.",
                evidence=["the connection is down"],
                hold_s=thresholds.broker_hold_s,
                path="/healthz",
                **_LOOK,
            )
        )
    if facts.refused >= thresholds.refused_messages:
        window_s = thresholds.refused_window_s
        found.append(
            finding(
                "refused",
                severity=Severity.WARNING,
                title="messages are refused",
                sentence=f"{facts.refused} messages of devices could not be taken in within {window_s:g} s.",
                evidence=[f"{facts.taken} were taken in meanwhile", *filter(None, [facts.last_refusal])],
                path="/api/v1/fleet/dead-letters",
                **_LOOK,
            )
        )
    if facts.backlog >= thresholds.backlog_records:
        found.append(
            finding(
                "backlog",
                severity=Severity.WARNING,
                title="records wait to be judged",
                sentence=f"{facts.backlog} records were taken in and not judged: drift is out of date.",
                evidence=[f"the limit is {thresholds.backlog_records}"],
                hold_s=thresholds.backlog_hold_s,
                path="/metrics",
                **_LOOK,
            )
        )
    return found
