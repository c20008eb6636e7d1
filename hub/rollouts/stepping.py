"""Steps of the engine, and what the hub does about them: the orders that follow, and one transaction."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import MusterError, VariantUnsupported, VersionRevoked
from fleet.rollout import engine
from fleet.rollout.events import Assign, DeploymentReported, DeploymentsReported, Event
from fleet.rollout.state.rollout import Rollout
from hub.registry.lookups import Released
from hub.rollouts.detours import Refused, detours
from hub.store.rows import OrderChange, RolloutRow, RolloutStep
from hub.variants import Offers, OfferStore

log = logging.getLogger(__name__)


class Stepping:
    """Steps through events and stores the outcome.

    Args:
        store: Keeps rollouts and orders; knows what devices can run.
        released: Looks up versions that may be rolled out.
        on_orders: Called after orders were stored.
        clock: Returns the hub's time, Unix seconds.
    """

    def __init__(
        self,
        store: OfferStore,
        released: Released,
        on_orders: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._released = released
        self._on_orders = on_orders
        self._clock = clock

    def apply(self, row: RolloutRow, events: Iterable[Event], position: int) -> RolloutRow:
        """Step through the events and store the outcome, with the orders, in one transaction."""
        state, changes = self.stepped(row.state, events)
        if state.revision != row.state.revision or position != row.position:
            self._store.apply_step(state, previous=row.state, position=position, changes=changes)
        if changes:
            self._on_orders()
        return RolloutRow(state=state, position=position, created_at_s=row.created_at_s)

    def step_of(self, row: RolloutRow, events: Iterable[Event], position: int) -> RolloutStep:
        """Return the step through the events, to be stored together with others."""
        state, changes = self.stepped(row.state, events)
        return RolloutStep(state, row.state, position, tuple(changes))

    def stepped(self, state: Rollout, events: Iterable[Event]) -> tuple[Rollout, list[OrderChange]]:
        """Return the state after the events, and the orders that follow."""
        changes: list[OrderChange] = []
        offers = Offers(self._store, self._released, state)
        waiting = deque(events)
        while waiting:
            state, commands = engine.step(state, waiting.popleft(), self._clock())
            refused: list[DeploymentReported] = []
            revoked: list[Refused] = []
            offers.read(command.device_id for command in commands if isinstance(command, Assign))
            for command in commands:
                if isinstance(command, Assign):
                    try:
                        changes.append(self._order(offers, state.model, command))
                    except VersionRevoked as error:
                        revoked.append(Refused(command, error))
                    except VariantUnsupported as error:
                        refused.append(_refusal(command, error, self._clock()))
                else:
                    log.info("Rollout %d: %s", state.number, command.text)
            elsewhere = detours(self._store, self._released, offers, state, revoked)
            changes += elsewhere.changes
            refused += [_refusal(each.command, each.error, self._clock()) for each in elsewhere.refused]
            waiting.extendleft(reversed(elsewhere.events))
            if refused:
                waiting.appendleft(DeploymentsReported(tuple(refused)))
        return state, changes

    def _order(self, offers: Offers, model: str, command: Assign) -> OrderChange:
        order = None if command.version is None else offers.order(command, command.version)
        return OrderChange(command.device_id, model, order)


def _refusal(command: Assign, error: MusterError, now_s: float) -> DeploymentReported:
    """Answer in place of a device that could not carry out the order, so that it is never sent."""
    return DeploymentReported(
        device_id=command.device_id,
        deployment_id=command.deployment_id,
        state=DeploymentState.REJECTED,
        at_s=now_s,
        cause=error.cause(),
    )
