"""The shell of the rollout engine: feeds it what happened, stores what it decided, in one transaction.

Each rollout reads the stored records of its model from a position of its own, and the position is stored
with the state that it led to. A hub that is killed at any moment and started again therefore goes on exactly
where the stored state is: no record is judged twice, none is left out, and no order is lost, because orders
are changes of the desired state that the same transaction makes (see `hub.assignments`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Conflict, InvalidMessage, InvalidPlan, MusterError, VariantUnsupported
from fleet.protocol.heads import read_sealed
from fleet.protocol.manifest import Manifest
from fleet.protocol.records import DeploymentReport, SealedWindow
from fleet.rollout import engine
from fleet.rollout.events import (
    Assign,
    DeploymentReported,
    Event,
    EvidenceObserved,
    Start,
    Supersede,
    Ticked,
    WasAway,
)
from fleet.rollout.plan import Plan, default_plan, rollback_plan
from fleet.rollout.removals import is_removed, open_removals
from fleet.rollout.state import Kind, Rollout
from hub.store.protocols import DeviceStore, MeasurementStore, RecordStore, RolloutStore
from hub.store.rows import OrderChange, RawRecord, RolloutRow, Superseded
from hub.tracing import span
from hub.variants import Offers

log = logging.getLogger(__name__)

RECORDS_PER_STEP = 500


class RolloutShellStore(RolloutStore, DeviceStore, RecordStore, MeasurementStore, Protocol):
    """What rollouts need of the store."""


class Rollouts:
    """Creates, steers and advances rollouts. Its methods block on the store: call them in a thread.

    Args:
        store: Keeps rollouts, orders and records.
        released: Returns digest and manifest of a released version; raises `NotFound` or `Conflict`.
        on_orders: Called after orders were stored.
    """

    def __init__(
        self,
        store: RolloutShellStore,
        *,
        released: Callable[[str, int], tuple[str, Manifest]],
        on_orders: Callable[[], None],
    ) -> None:
        self._store = store
        self._released = released
        self._on_orders = on_orders
        # Operators and time take turns, so that neither finds the other's change.
        self._lock = threading.Lock()

    def create(
        self,
        model: str,
        version: int,
        *,
        plan: Plan | None,
        devices: Sequence[str] | None,
        seed: int,
        variant_policy: VariantPolicy | None = None,
    ) -> RolloutRow:
        """Create a rollout; it moves nothing until it is started.

        Args:
            model: Name of the model.
            version: A released version of it.
            plan: None for the default plan.
            devices: Whom to reach; None for every device.
            seed: Fixes the order in which devices are reached.
            variant_policy: In place of the plan's; None for that.

        Raises:
            NotFound: There is no such version or device.
            Conflict: The version was not released.
            InvalidPlan: The plan cannot be carried out with these devices, or there are none.
        """
        members = [self._store.device(d).device_id for d in devices] if devices is not None else self._all()
        plan = plan or default_plan(len(members))
        if variant_policy is not None:
            plan = msgspec.structs.replace(plan, variant_policy=variant_policy)
        creation = self._creation(
            model,
            version,
            kind=Kind.UPDATE,
            plan=plan,
            devices=members,
            seed=seed,
        )
        return self._store.create_rollout(creation, time.time())

    def roll_back(self, model: str, to: int, *, by: str, reason: str) -> RolloutRow:
        """Bring every device that should run a newer version of the model to an older one, at once.

        A rollout of the model that is under way is superseded: this is the emergency exit.

        Raises:
            NotFound: There is no such version.
            Conflict: It was not released.
            InvalidPlan: No device should run a newer one: this way, without a gate, leads back only.
        """
        self._released(model, to)
        why = f"rolled back to version {to}" + (f": {reason}" if reason else "")
        with self._lock:
            in_the_way = [row for row in self._store.open_rollouts() if row.state.model == model]
            superseded = [
                Superseded(self._stepped(row.state, [Supersede(by=by, reason=why)])[0], row.state.revision)
                for row in in_the_way
            ]
            members = [d for d, version in self._store.desired_versions(model).items() if version > to]
            if not members:
                raise InvalidPlan(
                    f"No device runs a newer version of {model} than {to}: there is nothing to roll back.",
                    remedy="To bring a newer version, create a rollout: it is judged by a gate.",
                )
            creation = self._creation(
                model, to, kind=Kind.ROLLBACK, plan=rollback_plan(), devices=members, seed=0
            )
            row = self._store.begin_rollback(
                lambda number: self._stepped(creation(number), [Start(by=by)]),
                superseded=superseded,
                position=self._store.last_position(),
                now_s=time.time(),
            )
        self._on_orders()
        return row

    def act(self, number: int, event: Event) -> RolloutRow:
        """Carry out an operator's word.

        Raises:
            NotFound: There is no such rollout.
            Conflict: The rollout's status does not allow it, or another rollout of the model is under way.
        """
        with self._lock:
            row = self._store.rollout(number)
            position = row.position
            if isinstance(event, Start):
                # What was reported before the start is not about this rollout, and devices go back to what
                # they should run now, not to what they ran when it was created.
                position = self._store.last_position()
                event = Start(event.by, dict(self._store.desired_versions(row.state.model)))
            return self._apply(row, [event], position)

    def excuse(self, duration_s: float) -> None:
        """Tell every rollout under way that the hub was away for so long."""
        log.warning("The hub was away for %.0f s; no deadline counts that.", duration_s)
        for row in self._store.open_rollouts():
            with self._lock:
                row = self._store.rollout(row.state.number)  # noqa: PLW2901 - as it is under the lock
                self._apply(row, [WasAway(duration_s)], row.position)

    def advance(self) -> None:
        """Feed every rollout under way the records that it has not seen, and the time."""
        for row in self._store.open_rollouts():
            try:
                with self._lock:
                    self._advance(self._store.rollout(row.state.number))
            except Conflict:
                log.info("Rollout %d changed meanwhile; it is advanced again.", row.state.number)
            except MusterError as error:
                log.error("Rollout %d was not advanced: %s", row.state.number, error)

    def _advance(self, row: RolloutRow) -> None:
        while not row.state.status.is_final:
            records = self._store.raw_records_after(
                row.position, model=row.state.model, limit=RECORDS_PER_STEP
            )
            position = records[-1].position if records else row.position
            with span("rollout step", rollout=row.state.number, records=len(records)):
                row = self._apply(row, [*_events(records), *self._removals(row.state), Ticked()], position)
            if len(records) < RECORDS_PER_STEP:
                return

    def _removals(self, state: Rollout) -> list[Event]:
        """Return the removals that devices' own states show to be done."""
        done: list[Event] = []
        for part, restore in open_removals(state):
            device = self._store.device(part.device_id)
            if device.reported and is_removed(state.model, sequence=device.sequence, report=device.reported):
                at_s = device.reported.at_s
                removed = DeploymentReported(
                    part.device_id, restore.deployment_id, DeploymentState.REMOVED, at_s
                )
                done.append(removed)
        return done

    def _creation(
        self, model: str, version: int, *, kind: Kind, plan: Plan, devices: Sequence[str], seed: int
    ) -> Callable[[int], Rollout]:
        """Return what makes the rollout of a number."""
        digest, _ = self._released(model, version)
        previous = self._store.desired_versions(model)
        now_s = time.time()

        def build(number: int) -> Rollout:
            return engine.create(
                number=number,
                kind=kind,
                model=model,
                version=version,
                manifest_sha256=digest,
                plan=plan,
                seed=seed,
                devices={device_id: previous.get(device_id) for device_id in devices},
                now_s=now_s,
            )

        return build

    def _apply(self, row: RolloutRow, events: Iterable[Event], position: int) -> RolloutRow:
        """Step through the events and store the outcome, with the orders, in one transaction."""
        state, changes = self._stepped(row.state, events)
        if state.revision != row.state.revision or position != row.position:
            self._store.apply_step(
                state, previous_revision=row.state.revision, position=position, changes=changes
            )
        if changes:
            self._on_orders()
        return RolloutRow(state=state, position=position, created_at_s=row.created_at_s)

    def _stepped(self, state: Rollout, events: Iterable[Event]) -> tuple[Rollout, list[OrderChange]]:
        """Return the state after the events, and the orders that follow."""
        changes: list[OrderChange] = []
        offers = Offers(self._store, self._released, state)
        waiting = deque(events)
        while waiting:
            state, commands = engine.step(state, waiting.popleft(), time.time())
            for command in commands:
                if isinstance(command, Assign):
                    try:
                        changes.append(self._order(offers, state.model, command))
                    except VariantUnsupported as error:
                        waiting.appendleft(_refusal(command, error))
                else:
                    log.info("Rollout %d: %s", state.number, command.text)
        return state, changes

    def _order(self, offers: Offers, model: str, command: Assign) -> OrderChange:
        order = None if command.version is None else offers.order(command, command.version)
        return OrderChange(command.device_id, model, order)

    def _all(self) -> list[str]:
        members: list[str] = []
        while page := self._store.devices(after=members[-1] if members else "", limit=1000):
            members += [device.device_id for device in page]
        return members


def _events(records: Sequence[RawRecord]) -> list[Event]:
    """Turn records into events: reports in their order, all windows as one, with their counts sealed."""
    reports: list[Event] = []
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
    return [*reports, EvidenceObserved(tuple(windows))] if windows else reports


def _refusal(command: Assign, error: VariantUnsupported) -> DeploymentReported:
    """Answer in place of a device that could not carry out the order, so that it is never sent."""
    return DeploymentReported(
        device_id=command.device_id,
        deployment_id=command.deployment_id,
        state=DeploymentState.REJECTED,
        at_s=time.time(),
        cause=error.cause(),
    )
