"""What is refused of a plan for the devices that there are: too few, or another rollout has them.

Pure: the hub reads who matches and what other rollouts hold, and asks here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from fleet.protocol.errors import InvalidPlan
from fleet.rollout.plan import MOST_HELD_BACK, JudgedBy, Membership, Plan

_NAMED = 5


class Claim(NamedTuple):
    """That a rollout which has not ended reaches a device.

    Attributes:
        device_id: The device.
        rollout: Number of the rollout.
        priority: Of its plan.
        is_ordered: Whether the device was sent its order already.
    """

    device_id: str
    rollout: int
    priority: int
    is_ordered: bool


class Settlement(NamedTuple):
    """Which of two rollouts has a device that both reach.

    Attributes:
        taken: Devices that the new one takes, and from which rollout.
        left: Devices that stay with the rollout they are in.
    """

    taken: dict[str, int]
    left: dict[str, int]


def keeps(claim: Claim, priority: int) -> bool:
    """Whether a device stays with the rollout it is in, when one of another priority reaches it too."""
    return claim.priority >= priority or claim.is_ordered


def settle_claims(members: Collection[str], priority: int, claims: Iterable[Claim]) -> Settlement:
    """Decide about the devices of a new rollout that others of the model have.

    A higher priority takes what the lower has not ordered; what is ordered stays, and a lower priority takes
    nothing. Between equals nothing could decide.

    Args:
        members: Devices of the new rollout; a set, for speed.
        priority: Of its plan.
        claims: Of the rollouts of the same model that have not ended, one for each device.

    Raises:
        InvalidPlan: Another rollout of the same priority reaches some of the devices.
    """
    taken: dict[str, int] = {}
    left: dict[str, int] = {}
    equal: list[Claim] = []
    for claim in claims:
        if claim.device_id not in members:
            continue
        if claim.priority == priority:
            equal.append(claim)
        elif keeps(claim, priority):
            left[claim.device_id] = claim.rollout
        else:
            taken[claim.device_id] = claim.rollout
    if equal:
        others = ", ".join(str(number) for number in sorted({claim.rollout for claim in equal}))
        names = ", ".join(claim.device_id for claim in equal[:_NAMED])
        more = f" and {len(equal) - _NAMED:,} more" if len(equal) > _NAMED else ""
        raise InvalidPlan(
            f"priority: rollout {others} of the same priority {priority} reaches {names}{more} too.",
            remedy="Wait until it ends, abort it, choose other devices, or another priority.",
            field="priority",
        )
    return Settlement(taken, left)


def check_obeyed(plan: Plan) -> None:
    """Refuse what can be written and is not carried out yet: to ignore it would be to fail open.

    Raises:
        InvalidPlan: The plan asks for a priority, though one rollout of a model is under way at a time.
    """
    if plan.priority != 0:
        raise InvalidPlan("priority: it is not carried out yet.", field="priority")


def check_members(plan: Plan, device_count: int) -> None:
    """Check that a target means somebody.

    Raises:
        InvalidPlan: Nobody matches, and nobody who comes later would be taken in.
    """
    if device_count == 0 and plan.target is not None and plan.membership is Membership.SNAPSHOT:
        raise InvalidPlan(
            "target: no device matches, and a snapshot takes in nobody later.",
            remedy="Look with `muster device list --where`, or let membership be continuous.",
            field="target",
        )


def check_sizes(plan: Plan, sizes: Sequence[int]) -> None:
    """Check that each stage has the devices that it is to be judged by.

    Args:
        plan: The plan.
        sizes: How many devices each stage adds, one for each stage.

    Raises:
        InvalidPlan: A stage of a snapshot adds nobody, or fewer than its ``minimum_devices``; or one that is
            judged by installs alone adds too many.
    """
    most = MOST_HELD_BACK * sum(sizes)
    if plan.stages[-1].judged_by is JudgedBy.INSTALLS and sizes[-1] > most:
        raise InvalidPlan(
            f"Stage {len(sizes)}: it is judged by installs alone and adds {sizes[-1]:,} of {sum(sizes):,} "
            f"devices; {MOST_HELD_BACK:.0%} may.",
            remedy="Bring the version to more devices under the gate before.",
            field=f"stages[{len(sizes) - 1}].judged_by",
        )
    if plan.membership is Membership.CONTINUOUS:
        return
    for index, (stage, size) in enumerate(zip(plan.stages, sizes, strict=True)):
        where = f"Stage {index + 1}"
        if size == 0:
            field = "devices" if stage.cohort is None else "cohort"
            raise InvalidPlan(f"{where}: it adds nobody.", field=f"stages[{index}].{field}")
        if size < stage.minimum_devices:
            raise InvalidPlan(
                f"{where}: minimum_devices {stage.minimum_devices:,} is more than the {size:,} it adds.",
                remedy="It could never pass.",
                field=f"stages[{index}].minimum_devices",
            )
