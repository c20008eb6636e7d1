"""Which classes of devices no stage has reached yet, so that nothing is known of them.

Classes are the rollout's strata (`fleet.rollout.targeting`): a stage of fewer devices than there are classes
leaves some out, and harm that only these suffer passes its gate.
"""

from __future__ import annotations

import numpy as np

from fleet.rollout.gates.evidence import MOST_STRATA
from fleet.rollout.plans.naming import stage_called
from fleet.rollout.state.deployments import blocks
from fleet.rollout.state.rollout import Rollout, Warned
from fleet.sentences import devices

NAMED = 3
"""So many classes that are left out are named, the largest."""


def unseen(rollout: Rollout) -> tuple[Warned, ...]:
    """Return a warning for each stage but the last after which there are classes that nobody reached is of.

    Args:
        rollout: As the engine created it. Classes beyond those that are judged by name count as one.
    """
    counts = np.zeros((len(rollout.plan.stages), len(rollout.strata)), dtype=np.intp)
    for _, rows in blocks(rollout.deployments.pages):
        np.add.at(counts, (rows["stage"], rows["stratum"]), 1)
    sizes, reached = counts.sum(axis=0), counts.cumsum(axis=0)
    there = np.flatnonzero(sizes)
    told: list[Warned] = []
    for index in range(len(rollout.plan.stages) - 1):
        left = [place for place in there.tolist() if reached[index, place] == 0]
        if left:
            left.sort(key=lambda place: -sizes[place])
            named = [f"{_called(rollout.strata[place])} ({devices(int(sizes[place]))})" for place in left]
            more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
            seen = len(there) - len(left)
            there_are = f"{len(there)}{' or more' if len(rollout.strata) == MOST_STRATA else ''}"
            text = (
                f"{stage_called(rollout.plan, index)}: by then it reaches {seen} of {there_are} "
                f"classes of devices, and nobody of {', '.join(named[:NAMED])}{more}. "
                "Harm that only these suffer shows later."
            )
            told.append(Warned(index, text))
    return tuple(told)


def _called(stratum: str) -> str:
    return stratum or "the others"
