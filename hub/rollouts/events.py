"""From what the hub has stored, records and devices' states, to events of the rollout engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import InvalidMessage, VersionRevoked
from fleet.protocol.heads import read_sealed
from fleet.protocol.noised import NoisedWindow
from fleet.protocol.records import DeploymentReport, SealedWindow, ShadowReport
from fleet.rollout.events import DeploymentReported, DeploymentsReported, Event, EvidenceObserved, Revoke
from fleet.rollout.orders import open_orders
from fleet.rollout.removals import is_removed, open_removals
from fleet.rollout.state.rollout import Kind, Rollout, Status
from hub.store.protocols import DeviceStore
from hub.store.rows import RawRecord


def events_of(records: Sequence[RawRecord]) -> list[Event]:
    """Return all reports, in their order, as one event, and all evidence as one, windows' counts sealed."""
    reports: list[DeploymentReported] = []
    windows: list[tuple[str, SealedWindow]] = []
    shadows: list[tuple[str, ShadowReport]] = []
    noised: list[tuple[str, NoisedWindow]] = []
    for record in records:
        with suppress(InvalidMessage):  # the telemetry pass makes it a dead letter
            body = read_sealed(record.data)
            if isinstance(body, SealedWindow):
                windows.append((record.device_id, body))
            elif isinstance(body, NoisedWindow):
                noised.append((record.device_id, body))
            elif isinstance(body, ShadowReport):
                shadows.append((record.device_id, body))
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
    if windows or shadows or noised:
        events.append(EvidenceObserved(tuple(windows), tuple(shadows), tuple(noised)))
    return events


def revocation_of(released: Callable[[str, int], object], state: Rollout) -> list[Event]:
    """Return that a rollout's version was revoked, if it was and the rollout does not know.

    One whose orders are still open is told again: early hubs held it, and took nothing back.

    Args:
        released: Raises `VersionRevoked` if a version was revoked.
        state: Of the rollout.
    """
    if state.status not in {Status.RUNNING, Status.PAUSED}:
        return []
    if state.revoked and (state.kind is Kind.ROLLBACK or open_orders(state.tally) == 0):
        return []
    try:
        released(state.model, state.version)
    except VersionRevoked as error:
        return [Revoke(error.message)]
    return []


def removals_of(store: DeviceStore, state: Rollout) -> list[Event]:
    """Return the removals that devices' own states show to be done."""
    done: list[Event] = []
    removals = list(open_removals(state))
    devices = store.devices_named([part.device_id for part, _ in removals]) if removals else {}
    for part, restore in removals:
        device = devices[part.device_id]
        if device.reported and is_removed(state.model, sequence=device.sequence, report=device.reported):
            at_s = device.reported.at_s
            removed = DeploymentReported(part.device_id, restore.deployment_id, DeploymentState.REMOVED, at_s)
            done.append(removed)
    return done
