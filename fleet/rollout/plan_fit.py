"""What is refused of a plan for the devices that there are; which of them other rollouts have: `claims`.

Pure: the hub reads who matches, and asks here.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleet.protocol.errors import InvalidPlan
from fleet.rollout.plan import MOST_HELD_BACK, JudgedBy, Membership, Plan


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
