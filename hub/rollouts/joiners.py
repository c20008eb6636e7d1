"""Who joins the rollouts that take devices in: the fleet is looked through, then what changed of it.

A look goes through some of the devices, `DEVICES_PER_TURN` at most, on from where the look before came to;
the next one is made `TURN_S` later at the earliest. Devices come in the order in which they became what they
are (`DeviceStore.device_changes`), so that behind the last one come those that enrolled or changed since, and
nobody is looked at again who is what he was. `JOIN_LOOK_S` after the first look, or when they are through if
that takes longer, a round ends and the next one begins:

==================================  =======================================================================
what a round goes through           when
==================================  =======================================================================
what changed since, and who waits   the target asks what devices are
all devices                         it is the first one; the target asks also what devices do (health, drift,
                                    connections, versions); more than `MOST_WAITING` wait
==================================  =======================================================================

Who *waits* matches and was not taken in: another rollout has the device, it should run the version anyhow,
the plan has no room. That can change without the device, so it is asked again in every round.

A look is made before the rollout is advanced, outside of the lock that operators' words take. Who is of the
rollout already is left out by id, before anything else is read of it. What may have changed since the look is
asked again in `still_free`, under the lock, of the few that were found: which rollout has them, and what they
should run.

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
from hub.query.devices import Searches, SearchStore, asks_what_devices_are
from hub.rollouts.members import strata_of
from hub.store.protocols import ClaimStore, RolloutStore
from hub.store.rows import DeviceRow

JOIN_LOOK_S = 30.0
"""How often the fleet is looked through, unless that takes longer."""
DEVICES_PER_TURN = 2_000
"""Devices that all rollouts together look at in a turn: it takes hundredths of a second."""
TURN_S = 1.0
"""How soon a rollout looks on, however often it is advanced."""
MOST_WAITING = 2_000
"""Devices that a rollout remembers because they match and could not be taken in."""


class JoinerStore(SearchStore, ClaimStore, RolloutStore, Protocol):
    """What it takes to know who joins."""


class Look(NamedTuple):
    """What a look found.

    Attributes:
        found: Devices that match and are in no rollout of the model.
        at_s: When that was, hub time.
        began_s: When the round began.
        after: Number of the last change that was looked at.
        is_through: Whether there was none after it.
        waiting: Devices that matched when they were looked at last and were not of the rollout; None if they
            are too many.
    """

    found: tuple[Joiner, ...]
    at_s: float
    began_s: float
    after: int
    is_through: bool
    waiting: frozenset[str] | None


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
        if last is None or (last.is_through and not _is_kept_up(rollout, last)):
            last = Look((), now_s, now_s, 0, True, frozenset())
        open_rollouts = [row.state for row in self._store.open_rollouts()]
        limit = max(1, DEVICES_PER_TURN // max(1, sum(map(_takes_in, open_rollouts))))
        changes = self._store.device_changes(after=last.after, limit=limit)
        again = last.waiting if last.is_through and last.waiting else ()
        device_ids = list({*again, *(change.device_id for change in changes)})
        rows = self._matching(rollout, device_ids)
        return Look(
            found=self._free(rollout, rows, _before(open_rollouts, rollout)),
            at_s=now_s,
            began_s=now_s if last.is_through else last.began_s,
            after=changes[-1].number if changes else last.after,
            is_through=len(changes) < limit,
            waiting=_waiting(last, device_ids, rows),
        )

    def remember(self, rollout: int, look: Look) -> None:
        """Go on after a look, of which it is stored who was found."""
        self._looks[rollout] = look

    def look_again(self) -> None:
        """Begin anew with the next look of every rollout."""
        self._looks.clear()

    def _free(self, rollout: Rollout, rows: list[DeviceRow], before: Iterable[Rollout]) -> tuple[Joiner, ...]:
        """Return those of the devices that match which the rollout can have."""
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
    if last.is_through:
        return 0.0 <= now_s - last.began_s < JOIN_LOOK_S
    return 0.0 <= now_s - last.at_s < TURN_S


def _is_kept_up(rollout: Rollout, last: Look) -> bool:
    """Whether nobody else can have come to match than who changed or waits, see the head of this file."""
    return last.waiting is not None and asks_what_devices_are(rollout.plan.target)


def _waiting(last: Look, looked_at: Iterable[str], matching: Iterable[DeviceRow]) -> frozenset[str] | None:
    """Return who waits after a look."""
    if last.waiting is None:
        return None
    waiting = last.waiting.difference(looked_at).union(row.device_id for row in matching)
    return waiting if len(waiting) <= MOST_WAITING else None


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
