"""How a rollout goes on by itself: it is told what came in, who came to match it, and the time.

Each rollout reads the stored records of its model from a position of its own, and the position is stored
with the state that it led to.
"""

from __future__ import annotations

from typing import Protocol

from fleet.rollout.events import DevicesJoined, Event, Ticked
from fleet.rollout.state.rollout import Rollout
from hub.registry.lookups import Known, Released
from hub.rollouts.events import events_of, removals_of, revocation_of
from hub.rollouts.inputs import told_apart
from hub.rollouts.joiners import JoinerStore, Look, still_free
from hub.rollouts.stepping import Stepping
from hub.store.protocols import RecordStore
from hub.store.rows import RolloutRow
from hub.tracing import span

RECORDS_PER_STEP = 2_000
"""With 500, a record costs twice as much: the head is written, and pages are copied, once a step."""


class AdvancingStore(JoinerStore, RecordStore, Protocol):
    """What a rollout reads on its way."""


class Advancing:
    """Advances rollouts, one at a time.

    Args:
        store: Keeps records and devices.
        stepping: Steps through events and stores the outcome.
        released: Looks up versions that may be rolled out.
        known: Looks up any that have a bundle: devices may run revoked ones.
    """

    def __init__(
        self,
        store: AdvancingStore,
        stepping: Stepping,
        released: Released,
        *,
        known: Known,
    ) -> None:
        self._store = store
        self._stepping = stepping
        self._released = released
        self._known = known

    def advance(self, row: RolloutRow, look: Look | None = None) -> None:
        """Feed a rollout what it has not seen, batch by batch, and the time.

        Args:
            row: The rollout.
            look: Who was found that came to match it; None if nobody was looked for.
        """
        joined = self._joined(row.state, look)
        while not row.state.status.is_final:
            records = self._store.raw_records_after(
                row.position, model=row.state.model, limit=RECORDS_PER_STEP
            )
            position = records[-1].position if records else row.position
            with span("rollout step", rollout=row.state.number, records=len(records)):
                events = [
                    *revocation_of(self._released, row.state),
                    *told_apart(self._known, row.state, events_of(records)),
                    *removals_of(self._store, row.state),
                    *joined,
                    Ticked(),
                ]
                row = self._stepping.apply(row, events, position)
                joined = []
            if len(records) < RECORDS_PER_STEP:
                return

    def _joined(self, state: Rollout, look: Look | None) -> list[Event]:
        found = still_free(self._store, state, look.found) if look and look.found else ()
        return [DevicesJoined(found)] if found else []
