"""Who comes when: the stable order of a rollout's devices, and where each stage's cohort ends.

Devices are ordered by SHA-256 of the rollout's seed and their id. The order depends on nothing else, so a
restarted hub finds the same cohorts, a new seed spares yesterday's canaries, and neighbours in name (often
neighbours in place and hardware) are spread over the stages.

Where devices belong to strata, such as hardware class and site, each stratum is ranked so for itself, and the
strata are interleaved: the device of rank r (from 0) among n comes at (r + 1/2) / n, and the first device of
every stratum, the larger strata's first, before all others. So every prefix has of each stratum its share,
to one device, and a prefix of at least as many devices as there are strata sees every one.

A device that joins later cannot be ranked without moving others. Its own hash is its *lot*, and with the lot
and the room that there is, `stage_of` says which stage it is in.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from fleet.protocol.errors import InvalidPlan
from fleet.rollout.gates.evidence import MOST_STRATA
from fleet.rollout.plans.plan import Stage, share_of


def ordered(seed: int, device_ids: Iterable[str], strata: Mapping[str, str] | None = None) -> list[str]:
    """Return the devices in the order in which the rollout reaches them.

    Args:
        seed: Of the rollout.
        device_ids: In any order, without repeats.
        strata: The stratum of devices; those that are not in it share one.
    """
    names = list(device_ids)
    if not names:
        return names
    digests = np.frombuffer(b"".join(_digest(seed, name) for name in names), dtype=">u8").reshape(-1, 2)
    high, low = digests[:, 0], digests[:, 1]
    known = strata or {}
    _, codes = np.unique([known.get(name, "") for name in names], return_inverse=True)
    sizes = np.bincount(codes)
    by_stratum = np.lexsort((low, high, codes))
    ranks = np.empty(len(names), dtype=np.intp)
    ranks[by_stratum] = np.arange(len(names)) - (np.cumsum(sizes) - sizes)[codes[by_stratum]]
    order = np.lexsort((low, high, (ranks + 0.5) / sizes[codes], ranks > 0))
    return [names[place] for place in order.tolist()]


def named_strata(strata: Iterable[str]) -> tuple[str, ...]:
    """Return the strata that are judged by name: none first, then the largest, `MOST_STRATA` in all."""
    sizes = Counter(strata)
    sizes.pop("", None)
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))[: MOST_STRATA - 1]
    return ("", *sorted(largest))


def fraction(seed: int, device_id: str) -> float:
    """Return where a device stands among all that could ever be: from 0 to below 1, evenly spread."""
    return int.from_bytes(_digest(seed, device_id)[:8], "big") / 2**64


def stage_sizes(
    stages: tuple[Stage, ...], order: Sequence[str], cohorts: Mapping[int, Collection[str]] | None = None
) -> tuple[list[str], tuple[int, ...]]:
    """Put devices into stages.

    Args:
        stages: Of a plan that passed `fleet.rollout.plans.checks.check_plan`.
        order: The devices, see `ordered`.
        cohorts: By the place of a stage that names its cohort: the devices that match.

    Returns:
        The devices stage by stage, in this order within each; and how many have been reached after each.

    Raises:
        InvalidPlan: A stage would add nobody, ask for more devices than there are, or the last one would
            leave some out.
    """
    if all(stage.cohort is None for stage in stages):
        return list(order), cohort_ends(stages, len(order))
    waiting, placed, ends = list(order), list[str](), list[int]()
    for number, stage in enumerate(stages, start=1):
        if stage.cohort is not None:
            matching = (cohorts or {}).get(number - 1, ())
            added = [device_id for device_id in waiting if device_id in matching]
        else:
            added = waiting[: max(0, _end(number, stage, len(placed), len(order)) - len(placed))]
        if not added:
            raise InvalidPlan(
                f"Stage {number}: its cohort {stage.cohort!r:.80} adds no device: nobody matches, or earlier "
                "stages reach all who do.",
                field=f"stages[{number - 1}].cohort",
            )
        taken = set(added)
        waiting = [device_id for device_id in waiting if device_id not in taken]
        placed += added
        ends.append(len(placed))
    _check_all_reached(ends, len(order))
    return placed, tuple(ends)


def stage_of(
    lot: float,
    stages: tuple[Stage, ...],
    limits: Sequence[float],
    rooms: Sequence[float],
    matching: Collection[int] = (),
) -> int | None:
    """Return the stage that reaches a device which came later, from 0; None if none has room for it.

    It is the first stage whose cohort the device matches, or that has room and is either of a count or of a
    share that covers its lot.

    Args:
        lot: Of the device, see `fraction`.
        stages: Of the plan.
        limits: See `lot_limits`.
        rooms: See `rooms`.
        matching: Places of the stages whose cohort the device matches.
    """
    for place, stage in enumerate(stages):
        if stage.cohort is not None:
            if place in matching:
                return place
        elif rooms[place] > 0 and lot < limits[place]:
            return place
    return len(stages) - 1 if stages[-1].cohort is not None else None


def lot_limits(stages: tuple[Stage, ...], ends: tuple[int, ...]) -> list[float]:
    """Return for each stage below which lots it takes devices in, so that shares stay what the plan says.

    Lots below the limit of a stage are taken by it or an earlier one. Of what reaches a stage that names its
    cohort, as large a part is taken to match as at the start; the next share is made up from who is left. A
    count has no limit: it takes whoever it has room for.

    Args:
        stages: Of the plan.
        ends: How many devices each stage reached of those there were at the start.
    """
    limits, limit = list[float](), 0.0
    reached = 0.0  # the part of all joiners that stages have taken so far
    for stage, start, end in zip(stages, (0, *ends), ends, strict=False):
        if stage.cohort is not None:
            reached += (1.0 - reached) * (end - start) / max(1, ends[-1] - start)
        share = share_of(stage.devices) if isinstance(stage.devices, str) else None
        if share is None:
            limits.append(math.inf)
            continue
        if share > reached:
            limit += (1.0 - limit) * (share - reached) / (1.0 - reached)
            reached = share
        limits.append(limit if share < 1.0 else math.inf)  # a lot may be rounded to 1
    return limits


def rooms(stages: tuple[Stage, ...], sizes: Sequence[int]) -> list[float]:
    """Return how many more devices each stage can take in, by lot: a count bounds all up to its stage.

    Args:
        stages: Of the plan.
        sizes: How many devices each has.
    """
    room, found = math.inf, list[float]()
    for place in reversed(range(len(stages))):
        count = stages[place].devices
        if isinstance(count, int):
            room = min(room, max(0, count - sum(sizes[: place + 1])))
        found.append(room)
    return found[::-1]


def cohort_ends(stages: tuple[Stage, ...], device_count: int) -> tuple[int, ...]:
    """Return, for each stage, how many devices it reaches: it adds those from the previous end to its own.

    Args:
        stages: Of a plan that passed `fleet.rollout.plans.checks.check_plan`, all with a number of devices.
        device_count: How many devices the rollout has.

    Raises:
        InvalidPlan: A stage would add nobody, ask for more devices than there are, or the last one would
            leave some out.
    """
    ends: list[int] = []
    for number, stage in enumerate(stages, start=1):
        ends.append(_end(number, stage, ends[-1] if ends else 0, device_count))
    _check_all_reached(ends, device_count)
    return tuple(ends)


def _end(number: int, stage: Stage, before: int, device_count: int) -> int:
    """Return how many devices have been reached after a stage.

    Raises:
        InvalidPlan: It would add nobody, or asks for more devices than there are.
    """
    end, field = _reach(stage, device_count), f"stages[{number - 1}].devices"
    if end > device_count:
        raise InvalidPlan(
            f"Stage {number}: {end} devices are asked for; the rollout has {device_count}.", field=field
        )
    if end <= before:
        raise InvalidPlan(
            f"Stage {number}: {stage.devices} of {device_count} devices are {end}, "
            f"which adds nobody to the {before} of the stage before.",
            field=field,
        )
    return end


def _check_all_reached(ends: Sequence[int], device_count: int) -> None:
    if ends[-1] != device_count:
        raise InvalidPlan(
            f"Stage {len(ends)}: the last stage reaches {ends[-1]} of {device_count} devices.",
            remedy="Let it reach 'all', or choose fewer devices for the rollout.",
            field=f"stages[{len(ends) - 1}]",
        )


def _reach(stage: Stage, device_count: int) -> int:
    if isinstance(stage.devices, int):
        return stage.devices
    share = None if stage.devices is None else share_of(stage.devices)
    if share is None:
        raise InvalidPlan(f"{stage.devices!r:.40} is not a share of devices.")
    return math.ceil(round(share * device_count, 9))  # rounding first: 7 % of 100 is 7, not 8


def _digest(seed: int, device_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{device_id}".encode()).digest()[:16]
