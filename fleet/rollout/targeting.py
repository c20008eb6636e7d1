"""Who comes when: the stable order of a rollout's devices, and where each stage's cohort ends.

Devices are ordered by SHA-256 of the rollout's seed and their id. The order depends on nothing else, so a
restarted hub finds the same cohorts, a new seed spares yesterday's canaries, and neighbours in name (often
neighbours in place and hardware) are spread over the stages.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

from fleet.protocol.errors import InvalidPlan
from fleet.rollout.plan import Stage, share_of


def ordered(seed: int, device_ids: Iterable[str]) -> list[str]:
    """Return the devices in the order in which the rollout reaches them.

    Args:
        seed: Of the rollout.
        device_ids: In any order, without repeats.
    """
    return sorted(device_ids, key=lambda device_id: hashlib.sha256(f"{seed}/{device_id}".encode()).digest())


def cohort_ends(stages: tuple[Stage, ...], device_count: int) -> tuple[int, ...]:
    """Return, for each stage, how many devices it reaches: it adds those from the previous end to its own.

    Args:
        stages: Of a plan that passed `check_plan`.
        device_count: How many devices the rollout has.

    Raises:
        InvalidPlan: A stage would add nobody, ask for more devices than there are, or the last one would
            leave some out.
    """
    ends: list[int] = []
    for number, stage in enumerate(stages, start=1):
        end = _reach(stage, device_count)
        before = ends[-1] if ends else 0
        if end > device_count:
            raise InvalidPlan(f"Stage {number}: {end} devices are asked for; the rollout has {device_count}.")
        if end <= before:
            raise InvalidPlan(
                f"Stage {number}: {stage.devices} of {device_count} devices are {end}, "
                f"which adds nobody to the {before} of the stage before."
            )
        ends.append(end)
    if ends[-1] != device_count:
        raise InvalidPlan(
            f"Stage {len(stages)}: the last stage reaches {ends[-1]} of {device_count} devices.",
            remedy="Let it reach 'all', or choose fewer devices for the rollout.",
        )
    return tuple(ends)


def _reach(stage: Stage, device_count: int) -> int:
    if isinstance(stage.devices, int):
        return stage.devices
    share = share_of(stage.devices)
    if share is None:
        raise InvalidPlan(f"{stage.devices!r:.40} is not a share of devices.")
    return math.ceil(round(share * device_count, 9))  # rounding first: 7 % of 100 is 7, not 8
