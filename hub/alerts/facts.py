"""Gathering what the rules of `fleet.alerts.found` judge, from what the hub keeps up to date anyhow.

Nothing here reads history: counts come from the state rows, devices by name only where a rule needs them, and
a rollout is read again only when its revision changed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from fleet.alerts.alert import Finding
from fleet.alerts.found.concept import ConceptDrift, concept_finding
from fleet.alerts.found.devices import (
    UnwellDevices,
    offline_finding,
    quarantine_finding,
    throttled_finding,
    unhealthy_finding,
)
from fleet.alerts.found.drift import by_cause, drift_finding
from fleet.alerts.found.hub import HubFacts, hub_findings
from fleet.alerts.found.revoked import RevokedVersion, revoked_finding
from fleet.alerts.found.rollouts import rollout_finding
from fleet.alerts.thresholds import Thresholds
from fleet.drift.fleet_alarms import FleetAlarm
from fleet.health import FleetHealth, HealthStatus, ModelHealth
from fleet.protocol.errors import NotFound
from fleet.rollout.state.rollout import Rollout, Status
from hub.health import alarms_of
from hub.rollouts.proven import Proven
from hub.store.concept_rows import EVERY_DEVICE, ConceptRow
from hub.store.protocols import (
    DeviceStore,
    DriftStore,
    QualityStore,
    QuarantineStore,
    RegistryStore,
    RolloutStore,
    StateStore,
)
from hub.store.rows import Revocation, VersionStatus

MOST_NAMED = 1000
"""So many devices are asked for by name; all are counted."""
_OF_INTEREST = frozenset({Status.PAUSED, Status.ROLLING_BACK, Status.ROLLED_BACK, Status.FAILED})


class FactStore(
    DeviceStore,
    DriftStore,
    QualityStore,
    QuarantineStore,
    RegistryStore,
    RolloutStore,
    StateStore,
    Protocol,
):
    """What alerts need of the store."""


class HubCounts(NamedTuple):
    """What the hub counts of itself: messages since it started, and records that wait to be judged."""

    taken: int
    refused: int
    backlog: int


class FleetLook:
    """Finds what holds now. Its methods block on the store: call them in a thread, one at a time.

    Args:
        store: Knows devices, drift and rollouts.
        thresholds: Where alerts begin.
        broker_connected: Tells whether the hub is connected to its broker.
        counts: Returns what the hub counts of itself.
    """

    def __init__(
        self,
        store: FactStore,
        thresholds: Thresholds,
        *,
        broker_connected: Callable[[], bool],
        counts: Callable[[], HubCounts],
    ) -> None:
        self._store = store
        self._thresholds = thresholds
        self._broker_connected = broker_connected
        self._counts = counts
        self._rollouts: dict[int, Rollout] = {}
        self._drift: dict[str, _Drift] = {}
        self._ways_back: dict[tuple[str, int], tuple[object, int | None]] = {}
        self._counted: deque[tuple[float, HubCounts]] = deque()

    def findings(self, now_s: float) -> list[Finding]:
        """Return what is found now.

        Args:
            now_s: Unix seconds.

        Raises:
            StorageError: The store cannot be read.
        """
        health = self._store.fleet_health()
        return [
            *self._of_drift(health),
            *self._of_concepts(health),
            *self._of_revoked(health),
            *self._of_rollouts(now_s),
            *self._of_devices(health, now_s),
            *hub_findings(self._hub_facts(now_s), self._thresholds),
        ]

    def _of_drift(self, health: FleetHealth) -> Iterable[Finding]:
        """Yield what is found of drift; what devices share is asked only when others drift than before."""
        who: dict[str, set[tuple[str, int, tuple[str, ...]]]] = defaultdict(set)
        for row in self._store.alarming():
            who[row.model].add((row.device_id, row.version, row.alarm.raised))
        running = {model.model: _running(model) for model in health.models}
        before, self._drift = self._drift, {}
        for model in sorted(who):
            known = before.get(model)
            if known is None or known.who != who[model]:
                known = _Drift(who[model], alarms_of(self._store, model))
            self._drift[model] = known
            for alarms in by_cause(known.alarms):
                yield drift_finding(
                    alarms,
                    previous=self._previous,
                    by_version=running.get(model, {}),
                    thresholds=self._thresholds,
                )

    def _of_concepts(self, health: FleetHealth) -> Iterable[Finding]:
        """Yield what labels say of versions that devices run; a test of what nobody runs ends no more."""
        running = {
            (model.model, version): devices
            for model in health.models
            for version, devices in model.by_version.items()
        }
        found: dict[tuple[str, int], list[ConceptRow]] = defaultdict(list)
        raised = self._store.raised_concepts()
        to_run = self._store.to_run([row.key for row in raised if row.device_id != EVERY_DEVICE])
        for row in raised:
            if row.device_id == EVERY_DEVICE or row.key in to_run:
                found[row.model, row.version].append(row)
        for (model, version), rows in sorted(found.items()):
            of_devices = running.get((model, str(version)), 0)
            if of_devices == 0:
                continue
            states = {row.device_id: row.state for row in rows}
            together = states.pop(EVERY_DEVICE, None)
            yield concept_finding(
                ConceptDrift(model, version, together, states, of_devices), self._thresholds
            )

    def _of_revoked(self, health: FleetHealth) -> Iterable[Finding]:
        """Yield what was revoked and is run all the same."""
        for model in health.models:
            running = _running(model)
            for version, devices in sorted(running.items()):
                found = self._revoked(model.model, version)
                if found is None or devices == 0:
                    continue
                why = f"{found.by} revoked it: {found.reason}"
                previous = self._previous(model.model, version)
                revoked = RevokedVersion(model.model, version, why, previous, running)
                yield revoked_finding(revoked, self._thresholds)

    def _revoked(self, model: str, version: int) -> Revocation | None:
        try:
            return self._store.version(model, version).revoked
        except NotFound:  # what devices say that they run need not be of this hub
            return None

    def _previous(self, model: str, version: int) -> int | None:
        """Return the proven version that devices which are to run one go back to; None if there is none.

        It is asked anew when a rollout of the model began or ended, or a version was released or revoked.
        """
        released = self._released(model)
        heads = (head for head in self._store.newest_rollouts() if head.model == model)
        state = (released, tuple((head.number, head.status) for head in heads))
        known = self._ways_back.get((model, version))
        if known is None or known[0] != state:
            desired = self._store.desired_versions(model)
            running = {device_id: runs for device_id, runs in desired.items() if runs == version}
            known = (state, Proven(self._store, released.__contains__, model).way_back(running))
            self._ways_back[model, version] = known
        return known[1]

    def _released(self, model: str) -> frozenset[int]:
        """Return the released versions of a model."""
        found: set[int] = set()
        after = ("", 0)
        while page := self._store.versions(model, after=after):
            found.update(row.version for row in page if row.status is VersionStatus.RELEASED)
            after = (page[-1].model, page[-1].version)
        return frozenset(found)

    def _of_rollouts(self, now_s: float) -> Iterable[Finding]:
        newest = self._store.newest_rollouts()
        heads = [head for head in newest if head.status in _OF_INTEREST or head.awaits_approval]
        known: dict[int, Rollout] = {}
        for head in heads:
            rollout = self._rollouts.get(head.number)
            if rollout is None or rollout.revision != head.revision:
                rollout = self._store.rollout(head.number).state
            known[head.number] = rollout
            found = rollout_finding(rollout, now_s, previous=self._previous, thresholds=self._thresholds)
            if found is not None:
                yield found
        self._rollouts = known

    def _of_devices(self, health: FleetHealth, now_s: float) -> Iterable[Finding]:
        quarantined = {
            row.device_id: f"in quarantine for {row.until_s - row.since_s:g} s"
            for row in self._store.quarantines()
            if row.until_s > now_s
        }
        drifting = {device for drift in self._drift.values() for device, _, _ in drift.who}
        unwell = self._unwell(health.by_status, drifting.union(quarantined))
        found = (
            offline_finding(unwell[HealthStatus.OFFLINE], health.devices, self._thresholds),
            unhealthy_finding(unwell[HealthStatus.UNHEALTHY], health.devices, self._thresholds),
            quarantine_finding(quarantined, self._thresholds),
            self._of_boards(health),
        )
        return [finding for finding in found if finding is not None]

    def _of_boards(self, health: FleetHealth) -> Finding | None:
        count = self._store.count_throttled()
        if throttled_finding({}, count, health.devices, self._thresholds) is None:
            return None
        reports = {row.device_id: row.reported for row in self._store.throttled_devices(limit=MOST_NAMED)}
        boards = {
            name: report.board
            for name, report in reports.items()
            if report and report.board is not msgspec.UNSET
        }
        return throttled_finding(boards, count, health.devices, self._thresholds)

    def _unwell(
        self, by_status: Mapping[HealthStatus, int], alerted: Collection[str]
    ) -> dict[HealthStatus, UnwellDevices]:
        """Return the devices that are offline, and those that are unhealthy and not alerted already."""
        statuses = (HealthStatus.OFFLINE, HealthStatus.UNHEALTHY)
        counts = {status: by_status.get(status, 0) for status in statuses}
        reasons: dict[HealthStatus, dict[str, str]] = {status: {} for status in statuses}
        if any(counts.values()):
            for device in self._store.unwell(limit=MOST_NAMED):
                if device.status is HealthStatus.OFFLINE or device.device_id not in alerted:
                    reasons[device.status][device.device_id] = "; ".join(device.reasons)
        states = self._store.device_states(sorted(alerted)).values()
        counts[HealthStatus.UNHEALTHY] -= sum(state.status is HealthStatus.UNHEALTHY for state in states)
        return {status: UnwellDevices(max(0, counts[status]), reasons[status]) for status in statuses}

    def _hub_facts(self, now_s: float) -> HubFacts:
        now = self._counts()
        while self._counted and now_s - self._counted[0][0] > self._thresholds.refused_window_s:
            self._counted.popleft()
        self._counted.append((now_s, now))
        _, before = self._counted[0]
        return HubFacts(
            broker_connected=self._broker_connected(),
            refused=now.refused - before.refused,
            taken=now.taken - before.taken,
            backlog=now.backlog,
        )


def _running(model: ModelHealth) -> dict[int, int]:
    """Return how many devices run each version of a model."""
    return {int(version): n for version, n in model.by_version.items() if version.isdecimal()}


class _Drift(NamedTuple):
    """The drift of one model: whose alarms name what, and what that makes of the fleet."""

    who: set[tuple[str, int, tuple[str, ...]]]
    alarms: tuple[FleetAlarm, ...]
