"""Who joins the rollouts that take devices in: the fleet is looked through again and again, some at a time.

A look goes through some of the devices, `DEVICES_PER_TURN` at most, on from where the look before came to;
the next one is made `TURN_S` later at the earliest. `JOIN_LOOK_S` after the first one, or when they are
through if that takes longer, they begin anew. A look is made before the rollout is advanced, outside of the
lock that operators' words take. Who is of the rollout already is left out by id, before anything else is
read of it. What may have changed since the look is asked again in `still_free`, under the lock, of the few
that were found: which rollout has them, and what they should run.

Where a look has come to is not stored: a hub that starts anew begins with the first device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from fleet.rollout.claims import priority_of
from fleet.rollout.events import Joiner
from fleet.rollout.plans.plan import Membership, Plan
from fleet.rollout.state.rollout import Rollout, Status
from hub.query.devices import Searches, SearchStore
from hub.rollouts.members import strata_of
from hub.store.protocols import ClaimStore, RolloutStore
from hub.store.rows import DeviceRow

JOIN_LOOK_S = 30.0
"""How often the fleet is looked through, unless that takes longer."""
DEVICES_PER_TURN = 2_000
"""Devices that all rollouts together look at in a turn: it takes hundredths of a second."""
TURN_S = 1.0
"""How soon a rollout looks on, however often it is advanced."""


class JoinerStore(SearchStore, ClaimStore, RolloutStore, Protocol):
    """What it takes to know who joins."""


class Look(NamedTuple):
    """What a look found.

    Attributes:
        found: Devices that match and are in no rollout of the model.
        at_s: When that was, hub time.
        began_s: When the first device was looked at.
        after: The last device that was looked at; empty if that was the last of all.
    """

    found: tuple[Joiner, ...]
    at_s: float
    began_s: float
    after: str


class Joiners:
    """Looks for devices that came to match rollouts.

    Args:
        store: Knows the devices and the rollouts.
        find: Searches devices.
        group_by: The hub's setting.
        clock: Returns the hub's time, Unix seconds.
    """

    def __init__(
        self, store: JoinerStore, find: Searches, group_by: tuple[str, ...], clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._find = find
        self._group_by = group_by
        self._clock = clock
        self._looks: dict[int, Look] = {}

    def look(self, rollout: Rollout) -> Look | None:
        """Look at the next devices; None if it is not time to, or the rollout takes nobody in."""
        last, now_s = self._looks.get(rollout.number), self._clock()
        if not _takes_in(rollout) or (last is not None and _is_early(last, now_s)):
            return None
        after, began_s = (last.after, last.began_s) if last is not None and last.after else ("", now_s)
        open_rollouts = [row.state for row in self._store.open_rollouts()]
        limit = max(1, DEVICES_PER_TURN // max(1, sum(map(_takes_in, open_rollouts))))
        device_ids = self._store.device_ids(after=after, limit=limit)
        found = self._found(rollout, device_ids, _before(open_rollouts, rollout))
        return Look(found, now_s, began_s, device_ids[-1] if len(device_ids) == limit else "")

    def remember(self, rollout: int, look: Look) -> None:
        """Go on after a look, of which it is stored who was found."""
        self._looks[rollout] = look

    def look_again(self) -> None:
        """Begin anew with the next look of every rollout."""
        self._looks.clear()

    def _found(
        self, rollout: Rollout, device_ids: Sequence[str], before: Iterable[Rollout]
    ) -> tuple[Joiner, ...]:
        rows = self._matching(rollout, device_ids)
        elsewhere = self._store.claimed_by(rollout.model, [row.device_id for row in rows])
        rows = [row for row in rows if row.device_id not in elsewhere]
        if not rows:
            return ()
        running = self._store.desired_versions(rollout.model, [row.device_id for row in rows])
        rows = [row for row in rows if running.get(row.device_id) != rollout.version]
        for other in before:
            taken = {row.device_id for row in self._matching(other, [row.device_id for row in rows])}
            taken = {name for name in taken if running.get(name) != other.version}
            rows = [row for row in rows if row.device_id not in taken]
        strata, cohorts = strata_of(rows, rollout.plan, self._group_by), self._cohorts(rollout.plan, rows)
        return tuple(
            Joiner(
                device_id=row.device_id,
                version=running.get(row.device_id),
                stratum=strata[row.device_id],
                matching=tuple(place for place, cohort in cohorts.items() if row.device_id in cohort),
            )
            for row in rows
        )

    def _matching(self, rollout: Rollout, device_ids: Sequence[str]) -> list[DeviceRow]:
        """Return those of the devices that match a rollout and are not of it."""
        places = rollout.deployments.members.places(device_ids)
        strange = [name for name, place in zip(device_ids, places, strict=True) if place is None]
        if not strange:
            return []
        return self._find.among(rollout.plan.target, self._store.devices_named(strange).values())

    def _cohorts(self, plan: Plan, rows: Sequence[DeviceRow]) -> dict[int, set[str]]:
        """Return which devices match each stage that names its cohort, by the stage's place."""
        return {
            place: {row.device_id for row in self._find.among(stage.cohort, rows)}
            for place, stage in enumerate(plan.stages)
            if stage.cohort is not None and rows
        }


def still_free(store: JoinerStore, rollout: Rollout, found: Sequence[Joiner]) -> tuple[Joiner, ...]:
    """Return the devices of a look that no rollout of the model has by now, with what they should run now."""
    names = [joiner.device_id for joiner in found]
    elsewhere = store.claimed_by(rollout.model, names)
    running = store.desired_versions(rollout.model, names)
    return tuple(
        msgspec.structs.replace(joiner, version=running.get(joiner.device_id))
        for joiner in found
        if joiner.device_id not in elsewhere
    )


def _takes_in(rollout: Rollout) -> bool:
    is_open = rollout.status in {Status.RUNNING, Status.PAUSED} and not rollout.revoked
    return is_open and rollout.plan.membership is Membership.CONTINUOUS


def _is_early(last: Look, now_s: float) -> bool:
    """Whether it is not time yet for the next look; if the clock was set, it is."""
    if last.after:
        return 0.0 <= now_s - last.at_s < TURN_S
    return 0.0 <= now_s - last.began_s < JOIN_LOOK_S


def _before(open_rollouts: Iterable[Rollout], rollout: Rollout) -> Iterator[Rollout]:
    """Yield the rollouts of the model that take devices in, and come before this one.

    Of two that a device comes to match, the one of the higher priority takes it in, and of equals the one of
    the lower number, whichever looks first.
    """

    def rank(one: Rollout) -> tuple[float, int]:
        return -priority_of(one), one.number

    for other in open_rollouts:
        if other.model == rollout.model and _takes_in(other) and rank(other) < rank(rollout):
            yield other
