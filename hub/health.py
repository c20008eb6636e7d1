"""How the fleet is: keeps the state rows up to date, see `hub.store.protocols.states`.

A hub that judged 100,000 devices at each question would be busy with nothing else. Here the work follows what
changes: as often as rollouts are judged, and before each question, what changed meanwhile is judged.
"""

from __future__ import annotations

import time

from fleet.drift.affected import FleetTraits
from fleet.drift.fleet_alarms import DeviceAlarm, FleetAlarm, fleet_alarms
from hub.store.protocols import StateStore
from hub.store.state_rows import StateRules

DEVICES_PER_STEP = 500
"""Judged in one transaction: some 15 ms, in which no message is stored."""
STEPS_BEFORE_AN_ANSWER = 8


class FleetStates:
    """Keeps states up to date. Its methods block on the store.

    Args:
        store: Keeps them.
        rules: What they are judged by.
    """

    def __init__(self, store: StateStore, rules: StateRules) -> None:
        self.rules = rules
        self._store = store
        store.adopt_rules(rules)

    def advance(self) -> None:
        """Judge everything that changed."""
        while self._step() == DEVICES_PER_STEP:
            pass

    def before_answer(self) -> int:
        """Judge what changed, as far as nobody waits long for it; return how many devices remain."""
        for _ in range(STEPS_BEFORE_AN_ANSWER):
            if self._step() < DEVICES_PER_STEP:
                return 0
        return self._store.waiting()

    def _step(self) -> int:
        return self._store.refresh_states(now_s=time.time(), limit=DEVICES_PER_STEP)


def alarms_of(store: StateStore, model: str | None = None) -> tuple[FleetAlarm, ...]:
    """Return the fleet's drift alarms, as of the last refresh.

    Args:
        store: Knows the devices and their alarms.
        model: Only those of this model; None for all.
    """
    alarms = [
        DeviceAlarm(row.device_id, row.model, row.version, look, row.raised_at_s, row.looked_at_s)
        for row in store.alarming(model=model)
        for look in row.last_look
        if look.feature in row.alarm.raised
    ]
    fleets = {name: FleetTraits(store.traits(name)) for name in {alarm.model for alarm in alarms}}
    return fleet_alarms(alarms, fleets)
