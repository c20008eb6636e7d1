"""What a plan's stages are called in sentences; people count them from 1."""

from __future__ import annotations

from fleet.rollout.plans.plan import Plan


def stage_called(plan: Plan, index: int) -> str:
    """Return what a stage is called, such as ``Stage 2 (half)``; ``index`` counts from 0."""
    return f"Stage {index + 1}{_name(plan, index)}"


def stage_of_all(plan: Plan, index: int) -> str:
    """Return what a stage is called among all, such as ``Stage 2 of 4 (half)``."""
    return f"Stage {index + 1} of {len(plan.stages)}{_name(plan, index)}"


def _name(plan: Plan, index: int) -> str:
    name = plan.stages[index].name
    return f" ({name})" if name else ""
