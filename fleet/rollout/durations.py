"""How long a stage takes: what is to be expected, and the longest that it can.

::

    release     (devices - 1) × 60 / devices_per_minute: the last order goes out after that; 0 without a rate
    waves       ⌈devices / concurrency⌉ - 1: after so many it is the last devices' turn; 0 without a bound
    expected    max(release, waves × typical install) + typical install + shadow
                + max(minimum_bake_s, until a harmless version is forecast to pass the gate)
    longest     max(release, waves × slowest) + slowest + maximum_bake_s,
                slowest = tries × (deployment_timeout_s + shadow) + what lies between them

Waits for a maintenance window are in the longest alone; waits for an approval, or for a person while the
rollout is paused, are in neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from fleet.rollout.forecast.forecast import StageForecast
from fleet.rollout.plans.plan import Plan


class StageTimes(NamedTuple):
    """How long a stage takes, see the head of this file."""

    expected_s: float
    longest_s: float


def stage_times(
    plan: Plan, index: int, device_count: int, typical_install_s: float, *, passes_after_s: float = 0.0
) -> StageTimes:
    """Return how long a stage takes.

    Args:
        plan: The plan.
        index: The stage, from 0.
        device_count: How many devices it adds.
        typical_install_s: Of past installs of the model; 0 if there was none.
        passes_after_s: After how long a bake the gate is expected to say PASS; 0 for within the shortest.
    """
    stage = plan.stages[index]
    release_s = 0.0
    if plan.devices_per_minute is not None:
        release_s = max(0, device_count - 1) * 60.0 / plan.devices_per_minute
    waves = 0 if plan.concurrency is None else max(0, math.ceil(device_count / plan.concurrency) - 1)
    expected_s = max(release_s, waves * typical_install_s) + typical_install_s + plan.shadow_s
    tries = 1 + plan.retries.attempts
    slowest_s = tries * (plan.deployment_timeout_s + plan.shadow_s) + plan.retries.waits_s
    return StageTimes(
        expected_s + max(stage.minimum_bake_s, passes_after_s),
        max(release_s, waves * slowest_s) + slowest_s + stage.maximum_bake_s,
    )


def passing_s(forecasts: Iterable[StageForecast]) -> dict[int, float]:
    """Return by stage after how long a bake it passes, for the stages of which a PASS is forecast."""
    passing: dict[int, float] = {}
    for stage in forecasts:
        after_s = [metric.passes_after_s for metric in stage.metrics if metric.passes_after_s is not None]
        if after_s and len(after_s) == len(stage.metrics):
            passing[stage.stage] = max(after_s)
    return passing
