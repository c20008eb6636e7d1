"""What a rollout waits for that is no work of it: maintenance windows, and people who approve.

A device that is ready at any moment of a week finds the window closed for so long on average::

    Σ g² / (2 · week),   g the gaps from each end of the window to its next beginning

for it is in a gap with probability g / week, and then waits for half of it.
"""

from __future__ import annotations

from fleet.protocol.maintenance import DAYS, MINUTES_OF_DAY, Maintenance, longest_closed_s
from fleet.rollout.plans.naming import stage_called
from fleet.rollout.plans.plan import Plan
from fleet.sentences import duration


def mean_wait_s(window: Maintenance) -> float:
    """Return how long a device waits on average for a window to open, with clocks that nobody moves."""
    starts = sorted({DAYS.index(day) for day in window.days})
    following = [*starts[1:], starts[0] + len(DAYS)]
    gaps = [
        max(0, (after - start) * MINUTES_OF_DAY - window.length_minutes)
        for start, after in zip(starts, following, strict=True)
    ]
    return sum(gap**2 for gap in gaps) / (2 * len(DAYS) * MINUTES_OF_DAY) * 60.0


def told_waits(plan: Plan) -> tuple[str, ...]:
    """Return which waits the expected time of a rollout leaves out, sentences."""
    told: list[str] = []
    if plan.maintenance is not None:
        told.append(
            "Not counted in what is expected: each stage waits for the maintenance window, "
            f"{duration(mean_wait_s(plan.maintenance))} on average from any time of the week, "
            f"up to {duration(longest_closed_s(plan.maintenance))}."
        )
    approved = [stage_called(plan, index) for index, stage in enumerate(plan.stages) if stage.approval]
    if approved:
        told.append(f"Not counted: how long people take to approve of {', '.join(approved)}.")
    return tuple(told)
