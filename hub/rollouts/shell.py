"""The shell of the rollout engine: feeds it what happened, stores what it decided, in one transaction.

A hub that is killed at any moment and started again goes on exactly where the stored state is: no record is
judged twice, none is left out (`hub.rollouts.advancing`), and no order is lost, because orders are changes of
the desired state that the same transaction makes (see `hub.assignments`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import msgspec

from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.errors import Conflict, MusterError
from fleet.rollout.events import Event, Start, Supersede, WasAway
from fleet.rollout.forecast.forecast import warnings
from fleet.rollout.meanwhile import check_current
from fleet.rollout.plans.plan import Plan, rollback_plan
from fleet.rollout.preview import Preview
from fleet.rollout.state.rollout import Kind, Rollout
from fleet.rollout.unseen import unseen
from hub.query.devices import Searches
from hub.registry.lookups import Known, Released
from hub.rollouts.advancing import Advancing, AdvancingStore
from hub.rollouts.claims import check_claims, start
from hub.rollouts.detours import foreseen
from hub.rollouts.drafting import Drafting
from hub.rollouts.events import revocation_of
from hub.rollouts.forecast import forecast_of
from hub.rollouts.inputs import check_running
from hub.rollouts.joiners import Joiners
from hub.rollouts.preview import Previewing, PreviewStore
from hub.rollouts.proven import proven_of
from hub.rollouts.retreat import Retreat, retreat
from hub.rollouts.stepping import Stepping
from hub.store.rows import RolloutRow, Superseded

log = logging.getLogger(__name__)


class RolloutShellStore(PreviewStore, AdvancingStore, Protocol):
    """What rollouts need of the store."""


class Rollouts:
    """Creates, steers and advances rollouts. Its methods block on the store: call them in a thread.

    Args:
        store: Keeps rollouts, orders and records.
        released: Looks up versions that may be rolled out.
        on_orders: Called after orders were stored.
        group_by: The hub's setting.
        known: Looks up any that have a bundle, revoked ones too; None for `released`.
        refresh: Brings up to date what targets ask of health and drift, see `hub.query.devices.Searches`.
        clock: Returns the hub's time, Unix seconds.
    """

    def __init__(
        self,
        store: RolloutShellStore,
        *,
        released: Released,
        on_orders: Callable[[], None],
        group_by: tuple[str, ...] = (),
        known: Known | None = None,
        refresh: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._released = released
        self._on_orders = on_orders
        self._clock = clock
        self._find = Searches(store, refresh)
        self._drafting = Drafting(store, self._find, released, group_by, clock)
        self._previewing = Previewing(store, self._drafting, released, group_by, clock)
        self._stepping = Stepping(store, released, on_orders, clock)
        self._joiners = Joiners(store, self._find, group_by, clock)
        self._advancing = Advancing(store, self._stepping, released, known=known or released)
        self._stuck: set[int] = set()
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
        by: str = "",
    ) -> RolloutRow:
        """Create a rollout; it moves nothing until it is started.

        Args:
            model: Name of the model.
            version: A released version of it.
            plan: None for the default plan.
            devices: Whom to reach; None for every device.
            seed: Fixes the order in which devices are reached.
            variant_policy: In place of the plan's; None for that.
            by: Who creates it.

        Raises:
            NotFound: There is no such version or device.
            Conflict: The version was not released.
            InvalidPlan: The plan cannot be carried out with these devices, or there are none.
        """
        proposal = self._drafting.proposal(
            model, version, plan=plan, devices=devices, seed=seed, variant_policy=variant_policy, by=by
        )
        creation = self._drafting.update(proposal)
        now_s = self._clock()
        drawn = creation(0)
        warned = warnings(drawn.plan, forecast_of(self._store, drawn, now_s))
        warned += (*unseen(drawn), *foreseen(self._store, self._released, drawn))

        def build(number: int) -> Rollout:
            rollout = msgspec.structs.replace(creation(number), warned=warned)
            check_claims(self._store, rollout)
            return rollout

        return self._store.create_rollout(build, now_s)

    def preview(
        self,
        model: str,
        version: int,
        *,
        plan: Plan | None,
        devices: Sequence[str] | None,
        seed: int,
        variant_policy: VariantPolicy | None = None,
        all_named: bool = False,
    ) -> Preview:
        """Return what `create` and a start would do, before anything moves; nothing is stored.

        Args:
            model: As in `create`, like the next five.
            version: Likewise.
            plan: Likewise.
            devices: Likewise.
            seed: Likewise.
            variant_policy: Likewise.
            all_named: Whether to name every device.

        Raises:
            NotFound: As in `create`.
            Conflict: Likewise.
            InvalidPlan: Likewise.
        """
        proposal = self._drafting.proposal(
            model, version, plan=plan, devices=devices, seed=seed, variant_policy=variant_policy
        )
        return self._previewing.preview(proposal, all_named=all_named)

    def retreat(self, model: str, to: int | None, *, target: str | None = None) -> Retreat:
        """Return what `roll_back` would do, before anything moves; args and errors are as there."""
        return retreat(self._store, self._find, self._released, model, to=to, target=target)

    def way_back(self, model: str, running: Mapping[str, int]) -> int | None:
        """Return the proven version that devices go back to from what they are to run; None if none is."""
        return proven_of(self._store, self._released, model).way_back(running)

    def has_older(self, model: str, version: int) -> bool:
        """Whether a version below another one is released, proven or not."""
        below = proven_of(self._store, self._released, model).released_below(version)
        return next(below, None) is not None

    def roll_back(
        self,
        model: str,
        to: int | None,
        *,
        by: str,
        reason: str,
        target: str | None = None,
        devices_per_minute: float | None = None,
    ) -> RolloutRow:
        """Bring every device that should run a newer version of the model to an older one, at once.

        A rollout of the model that is under way is superseded: this is the emergency exit.

        Args:
            model: Name of the model.
            to: A released version; None for the proven one that `hub.rollouts.retreat` finds.
            by: Who.
            reason: Why; may be empty.
            target: Only devices that match; None for all.
            devices_per_minute: Most orders in a minute; None for no limit.

        Raises:
            NotFound: There is no such version.
            Conflict: It was not released, or a rollout under way also has devices outside the target.
            InvalidTarget: The target is refused.
            InvalidPlan: No device should run a newer one: this way, without a gate, leads back only. Or no
                older one is proven, and none is named.
        """
        with self._lock:
            meant = retreat(self._store, self._find, self._released, model, to=to, target=target)
            why = f"rolled back to version {meant.to}" + (f": {reason}" if reason else "")
            superseded = [
                Superseded(self._stepping.stepped(row.state, [Supersede(by=by, reason=why)])[0], row.state)
                for row in meant.in_the_way
            ]
            plan = msgspec.structs.replace(rollback_plan(), devices_per_minute=devices_per_minute)
            creation = self._drafting.creation(
                model, meant.to, kind=Kind.ROLLBACK, plan=plan, devices=meant.devices, seed=0, by=by
            )
            word = Start(by=by, note=meant.doubt)
            row = self._store.begin_rollback(
                lambda number: self._stepping.stepped(meant.noted(creation(number)), [word]),
                superseded=superseded,
                position=self._store.last_position(),
                now_s=self._clock(),
            )
        self._on_orders()
        return row

    def act(self, number: int, event: Event, *, decisions: Collection[int] | None = None) -> RolloutRow:
        """Carry out an operator's word.

        Args:
            number: Of the rollout.
            event: The word.
            decisions: See `fleet.rollout.meanwhile.check_current`; None to mean the rollout as it is now.

        Raises:
            NotFound: There is no such rollout.
            Outdated: Others decided meanwhile.
            InvalidInput: It names a stage that there is not.
            NotPermitted: Who moved the rollout approves of a stage.
            Conflict: The rollout's status does not allow it, or it names a stage whose turn it is not, or it
                would start and its version was revoked or others of its priority have some of its devices.
            InvalidPlan: It would start, and without the devices that others have its plan fits no more, or
                devices run another version by now of which it cannot compare inputs.
        """
        with self._turn_at(number) as row:
            check_current(row.state, decisions)
            if isinstance(event, Start):
                return self._start(row, event.by)
            return self._stepping.apply(row, [event], row.position)

    @contextmanager
    def _turn_at(self, number: int) -> Iterator[RolloutRow]:
        """Take the turn at a rollout, which is as it is now: it does not change until the turn is over."""
        with self._lock:
            yield self._store.rollout(number)

    def _start(self, row: RolloutRow, by: str) -> RolloutRow:
        self._released(row.state.model, row.state.version)
        steps = start(self._store, self._stepping, row, by)
        state = steps[-1].state
        running = state.deployments.previous_versions()
        check_running(self._released, state.model, state.version, state.plan, running)
        self._store.apply_steps(steps)
        if any(step.changes for step in steps):
            self._on_orders()
        return RolloutRow(steps[-1].state, steps[-1].position, row.created_at_s)

    def hold_revoked(self, model: str, version: int) -> list[int]:
        """Hold every rollout under way of a version that was revoked, and return their numbers.

        If the hub dies before, `advance` holds them.
        """
        numbers: list[int] = []
        for row in self._store.open_rollouts():
            if (row.state.model, row.state.version) != (model, version):
                continue
            with self._turn_at(row.state.number) as current:
                events = revocation_of(self._released, current.state)
                held = self._stepping.apply(current, events, current.position)
            if held.state.revoked:
                numbers.append(held.state.number)
        return numbers

    def excuse(self, duration_s: float, *, since_s: float) -> None:
        """Tell every rollout under way that the hub was away.

        Args:
            duration_s: For how long.
            since_s: Since when; told again of the same absence, a rollout adds only what it has grown by.
        """
        log.warning("The hub was away for %.0f s; no deadline counts that.", duration_s)
        for row in self._store.open_rollouts():
            with self._turn_at(row.state.number) as current:
                self._stepping.apply(current, [WasAway(duration_s, since_s)], current.position)

    def advance(self) -> None:
        """Feed every rollout under way the records that it has not seen, and the time."""
        for row in self._store.open_rollouts():
            try:
                look = self._joiners.look(row.state)  # an operator's word does not wait for that
                with self._turn_at(row.state.number) as current:
                    self._advancing.advance(current, look)
                if look is not None:
                    self._joiners.remember(row.state.number, look)
            except Conflict:
                log.info("Rollout %d changed meanwhile; it is advanced again.", row.state.number)
            except MusterError as error:
                log.error("Rollout %d was not advanced: %s", row.state.number, error)
                self._stuck.add(row.state.number)
            else:
                if row.state.number in self._stuck:  # what it has freed, others have looked for in vain
                    self._stuck.remove(row.state.number)
                    self._joiners.look_again()
