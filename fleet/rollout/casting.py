"""Who is in which stage: devices are put there when a rollout is created, and anew when it starts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from fleet.protocol.errors import InvalidPlan
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.columns import NO_VERSION
from fleet.rollout.state.deployments import Deployments
from fleet.rollout.state.draft import Draft
from fleet.rollout.targeting import named_strata, ordered, stage_sizes


class Cast(NamedTuple):
    """Devices in their stages.

    Attributes:
        ends: How many devices each stage of the plan and those before it have.
        strata: Names of the strata, see `fleet.rollout.targeting.named_strata`.
        deployments: One for each device, in the order of the rollout.
    """

    ends: tuple[int, ...]
    strata: tuple[str, ...]
    deployments: Deployments


class Meant(NamedTuple):
    """Whom a rollout means.

    Attributes:
        devices: For each device the version that it runs, None for none.
        strata: The stratum of devices, see `fleet.rollout.targeting`; those not named here share one.
        cohorts: By the place of a stage that names its cohort: the devices that match.
    """

    devices: Mapping[str, int | None]
    strata: Mapping[str, str]
    cohorts: Mapping[int, Collection[str]]


def cast(plan: Plan, meant: Meant, *, number: int, version: int, seed: int, now_s: float) -> Cast:
    """Put the devices that do not run the version into stages.

    Args:
        plan: Its stages.
        meant: The devices.
        number: Of the rollout.
        version: The version to bring.
        seed: Fixes the order of devices.
        now_s: Hub time, Unix seconds: since when they wait.

    Raises:
        InvalidPlan: There is nobody, or the plan does not fit so many devices.
    """
    targets = [device_id for device_id, previous in meant.devices.items() if previous != version]
    if not targets:
        raise InvalidPlan(f"There is no device to bring version {version} to.")
    order, ends = stage_sizes(plan.stages, ordered(seed, targets, meant.strata), meant.cohorts)
    names = named_strata(meant.strata.get(device_id, "") for device_id in order)
    code = {name: place for place, name in enumerate(names)}
    deployments = Deployments.queued(
        number,
        {device_id: meant.devices[device_id] for device_id in order},
        np.repeat(np.arange(len(ends), dtype=np.uint8), np.diff((0, *ends))),
        now_s,
        np.array([code.get(meant.strata.get(device_id, ""), 0) for device_id in order], dtype=np.uint16),
    )
    return Cast(ends, names, deployments)


def recast(draft: Draft, running: Mapping[str, int | None], left: Collection[str]) -> None:
    """Put the devices into stages anew, by what they run now, without those that another rollout has.

    A stage's named cohort stays who it was.
    """
    rollout = draft.rollout
    if _stands(draft, running, left):
        draft.editing.assign(np.arange(len(rollout.deployments)), since_s=draft.now_s)
        return
    devices: dict[str, int | None] = {}
    strata: dict[str, str] = {}
    cohorts = {number: set[str]() for number, stage in enumerate(rollout.plan.stages) if stage.cohort}
    places, editing = np.arange(len(rollout.deployments)), draft.editing
    codes = (editing.column(name, places).tolist() for name in ("stage", "stratum"))
    for device_id, stage, stratum in zip(editing.members.device_ids(places), *codes, strict=True):
        if device_id in left:
            continue
        devices[device_id] = running.get(device_id)
        strata[device_id] = rollout.strata[stratum]
        if stage in cohorts:
            cohorts[stage].add(device_id)
    anew = cast(
        rollout.plan,
        Meant(devices, strata, cohorts),
        number=rollout.number,
        version=rollout.version,
        seed=rollout.seed,
        now_s=draft.now_s,
    )
    draft.change(strata=anew.strata)
    draft.recast(anew.ends, anew.deployments)


def _stands(draft: Draft, running: Mapping[str, int | None], left: Collection[str]) -> bool:
    """Whether all devices are in the stages where they would be put now: nobody joined, left or changed."""
    rollout, editing = draft.rollout, draft.editing
    if left or len(editing) != rollout.cohort_ends[-1]:
        return False
    places = np.arange(len(editing))
    versions = [running.get(device_id) for device_id in editing.members.device_ids(places)]
    known = np.array([NO_VERSION if version is None else version for version in versions])
    return bool((editing.column("previous_version", places) == known).all())
