"""Who gets which device: asked when a rollout is created, and settled when it starts.

What decides is `fleet.rollout.claims`; here it is given the other rollouts of the model, and the steps that
follow for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from fleet.protocol.errors import Conflict, InvalidPlan
from fleet.rollout.claims import Claim, Settlement, claims_of, priority_of, settle_claims
from fleet.rollout.events import DevicesTaken, Start
from fleet.rollout.plans.fit import check_sizes
from fleet.rollout.state.rollout import Rollout, Status
from hub.rollouts.stepping import Stepping
from hub.store.protocols import DeviceStore, RecordStore, RolloutStore
from hub.store.rows import RolloutRow, RolloutStep


class StartStore(DeviceStore, RecordStore, RolloutStore, Protocol):
    """What a start needs of the store."""


def claims_on(store: RolloutStore, rollout: Rollout) -> Iterator[Claim]:
    """Yield the claims of a model's other rollouts that have not ended, started or not.

    Of those that were not started there are claims on the rollout's own devices only.

    Args:
        store: Knows them.
        rollout: Not stored, or not started.
    """
    device_ids = {claim.device_id for claim in claims_of(rollout)}
    yield from store.unstarted_claims(rollout.model, device_ids)
    for row in _under_way(store, rollout.model):
        yield from claims_of(row.state)


def check_claims(store: RolloutStore, rollout: Rollout) -> None:
    """Check that a rollout which is about to be created fights with no other one over a device.

    Raises:
        InvalidPlan: It does, or others would keep all of its devices.
    """
    _settled(rollout, claims_on(store, rollout))


def start(store: StartStore, stepping: Stepping, row: RolloutRow, by: str) -> list[RolloutStep]:
    """Return the steps by which a rollout starts: first of those that lose devices to it, then its own.

    Args:
        store: Knows the other rollouts, and what devices should run.
        stepping: Steps.
        row: The rollout.
        by: Who starts it.

    Raises:
        Conflict: Its status does not allow it, or others of its priority have some of its devices, or
            others have all of them.
        InvalidPlan: Without the devices that others have, or that run the version by now, its plan fits no
            more.
    """
    state, others = row.state, _under_way(store, row.state.model)
    taken: dict[int, list[str]] = {}
    left: dict[str, int] = {}
    if state.status is Status.CREATED:
        try:
            settlement = _settled(state, (claim for other in others for claim in claims_of(other.state)))
        except InvalidPlan as error:
            raise Conflict(error.message, remedy=error.remedy) from error
        left = settlement.left
        for device_id, number in settlement.taken.items():
            taken.setdefault(number, []).append(device_id)
    # What was reported before the start is not about this rollout, and devices go back to what they should
    # run now, not to what they ran when it was created.
    position = store.last_position()
    running: dict[str, int | None] = {**store.desired_versions(state.model)}
    started = stepping.step_of(row, [Start(by, running, left)], position)
    check_sizes(state.plan, started.state.stage_sizes)
    steps: list[RolloutStep] = []
    for other in others:
        if other.state.number in taken:
            event = DevicesTaken(tuple(taken[other.state.number]), state.number, state.plan.priority)
            steps.append(stepping.step_of(other, [event], other.position))
    return [*steps, started]


def _settled(rollout: Rollout, claims: Iterable[Claim]) -> Settlement:
    return settle_claims({claim.device_id for claim in claims_of(rollout)}, priority_of(rollout), claims)


def _under_way(store: RolloutStore, model: str) -> list[RolloutRow]:
    return [row for row in store.open_rollouts() if row.state.model == model]
