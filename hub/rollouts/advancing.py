"""How a rollout goes on by itself: it reads what came in, who came to match it, and the time.

Each rollout reads the stored records of its model from a position of its own, and the position is stored
with the state that it led to.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Protocol

from fleet.protocol.errors import InvalidPlan
from fleet.protocol.manifest import Manifest
from fleet.rollout.events import DevicesJoined, Event, Ticked
from fleet.rollout.plans.plan import Membership
from fleet.rollout.state.rollout import Rollout
from hub.query.devices import Searches
from hub.rollouts.events import events_of, removals_of, revocation_of
from hub.rollouts.inputs import Known, told_apart
from hub.rollouts.members import JoinerStore, joiners
from hub.rollouts.stepping import Stepping
from hub.store.protocols import RecordStore
from hub.store.rows import RolloutRow
from hub.tracing import span

log = logging.getLogger(__name__)

RECORDS_PER_STEP = 2_000
"""With 500, a record costs twice as much: the head is written, and pages are copied, once a step."""
JOIN_LOOK_S = 30.0
"""How often devices are looked for that came to match a rollout: it reads all that the target means."""


class AdvancingStore(JoinerStore, RecordStore, Protocol):
    """What a rollout reads on its way."""


class Advancing:
    """Advances rollouts, one at a time.

    Args:
        store: Keeps records and devices.
        find: Searches devices.
        stepping: Steps through events and stores the outcome.
        released: Returns digest and manifest of a released version; raises `NotFound` or `Conflict`.
        known: Likewise of any version that has a bundle.
        group_by: The hub's setting.
        clock: Returns the hub's time, Unix seconds.
    """

    def __init__(
        self,
        store: AdvancingStore,
        find: Searches,
        stepping: Stepping,
        released: Callable[[str, int], tuple[str, Manifest]],
        *,
        known: Known,
        group_by: tuple[str, ...],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._find = find
        self._stepping = stepping
        self._released = released
        self._known = known
        self._group_by = group_by
        self._clock = clock
        self._looked_s: dict[int, float] = {}

    def advance(self, row: RolloutRow) -> None:
        """Feed a rollout what it has not seen, batch by batch, and the time."""
        while not row.state.status.is_final:
            records = self._store.raw_records_after(
                row.position, model=row.state.model, limit=RECORDS_PER_STEP
            )
            position = records[-1].position if records else row.position
            with span("rollout step", rollout=row.state.number, records=len(records)):
                looked_s = self._clock()
                looks = self._is_to_look(row.state, looked_s)
                events = [
                    *revocation_of(self._released, row.state),
                    *told_apart(self._known, row.state, events_of(records)),
                    *removals_of(self._store, row.state),
                    *(self._joined(row.state) if looks else ()),
                    Ticked(),
                ]
                row = self._stepping.apply(row, events, position)
                if looks:  # it is stored who was found
                    self._looked_s[row.state.number] = looked_s
            if len(records) < RECORDS_PER_STEP:
                return

    def look_again(self) -> None:
        """Look for devices that came to match at the next turn, whenever that was done last."""
        self._looked_s.clear()

    def _is_to_look(self, state: Rollout, now_s: float) -> bool:
        """Whether to look for devices that came to match: every `JOIN_LOOK_S`, or if the clock was set."""
        since_s = now_s - self._looked_s.get(state.number, -math.inf)
        return state.plan.membership is Membership.CONTINUOUS and not 0.0 <= since_s < JOIN_LOOK_S

    def _joined(self, state: Rollout) -> list[Event]:
        """Return the devices that came to match a continuous rollout."""
        try:
            found = joiners(self._store, self._find, state, self._group_by)
        except InvalidPlan as error:
            log.info("Nobody joins rollout %d: %s", state.number, error)  # whoever is in it goes on
            return []
        return [DevicesJoined(found)] if found else []
