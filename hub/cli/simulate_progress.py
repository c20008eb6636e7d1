"""How far simulated runs are, on standard error: a bar on a terminal, elsewhere a sentence now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich.progress import Progress

from fleet.rollout.state.rollout import Rollout
from fleet.sentences import duration

BAR_S = 0.1
SENTENCE_S = 10.0
"""A simulation of minutes that said nothing could not be told from one that hangs."""


class Watched:
    """Tells of runs as they go.

    Args:
        bar: Is seen on a terminal only.
        runs: How many there are.
        clock: Returns seconds that only grow.
    """

    def __init__(self, bar: Progress, runs: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._bar, self._runs, self._clock = bar, runs, clock
        self._task = bar.add_task("draws the fleet")
        self._every_s = SENTENCE_S if bar.disable else BAR_S
        self._told_s = clock() if bar.disable else -BAR_S

    def look(self, number: int, rollout: Rollout, now_s: float) -> None:
        """Tell how far a run is, if it is time to.

        Args:
            number: Of the run, from 1.
            rollout: As it stands.
            now_s: Simulated time since its start.
        """
        if self._clock() - self._told_s < self._every_s:
            return
        self._told_s = self._clock()
        run = f"run {number} of {self._runs}: " if self._runs > 1 else ""
        if self._bar.disable:
            told = f"{run}{sentence(rollout, now_s)}"
            print(told[0].upper() + told[1:], file=sys.stderr, flush=True)  # noqa: T201 - not of the answer
        else:
            stage = f"stage {len(rollout.stages)} of {len(rollout.plan.stages)}"
            told = f"{run}{rollout.status.value}, {stage}, after {duration(now_s)}"
            self._bar.update(self._task, description=told)


def sentence(rollout: Rollout, now_s: float) -> str:
    """Say how far a simulated rollout is."""
    ended = sum(number for state, number in rollout.counts.items() if state.is_terminal)
    return (
        f"after {duration(now_s)} the rollout is {rollout.status.value} in stage {len(rollout.stages)} of "
        f"{len(rollout.plan.stages)}; {ended / rollout.device_count:.0%} of its {rollout.device_count:,} "
        "devices have ended."
    )
