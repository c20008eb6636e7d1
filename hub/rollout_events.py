"""From stored records to events of the rollout engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from fleet.protocol.errors import InvalidMessage
from fleet.protocol.heads import read_sealed
from fleet.protocol.records import DeploymentReport, SealedWindow
from fleet.rollout.events import DeploymentReported, DeploymentsReported, Event, EvidenceObserved
from hub.store.rows import RawRecord


def events_of(records: Sequence[RawRecord]) -> list[Event]:
    """Return all reports, in their order, as one event, and all windows, their counts sealed, as one."""
    reports: list[DeploymentReported] = []
    windows: list[tuple[str, SealedWindow]] = []
    for record in records:
        with suppress(InvalidMessage):  # the telemetry pass makes it a dead letter
            body = read_sealed(record.data)
            if isinstance(body, SealedWindow):
                windows.append((record.device_id, body))
            elif isinstance(body, DeploymentReport):
                reports.append(
                    DeploymentReported(
                        device_id=record.device_id,
                        deployment_id=body.deployment_id,
                        state=body.state,
                        at_s=body.at_s,
                        cause=body.cause,
                    )
                )
    events: list[Event] = [DeploymentsReported(tuple(reports))] if reports else []
    return [*events, EvidenceObserved(tuple(windows))] if windows else events
