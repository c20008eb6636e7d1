"""The evidence that is to be expected: what so many devices add up to if they go on as they do now.

Of D devices that each give n answers, with share p, variance v of one answer and correlation rho, the sums
over windows that `fleet.rollout.gates.dispersion` reads are taken as they are on average, for one window of
each device:

    total          D n
    total_squared  D n² u                                       u: how unevenly devices answer
    cross          p · total_squared                            no share depends on how much a device answers
    bad_squared    p² · total_squared  +  v total  +  v (total_squared - total) rho (D - 1) / D

The last factor is there because the gate measures around the share of the same devices, and makes up for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fleet.rollout.forecast.habits import Habit, Habits
from fleet.rollout.gates.evidence import Arm, Tally, gathered

Devices = Mapping[str, float]
"""How many devices there are of each class; those of none have an empty name."""


def expected_arm(devices: Devices, habits: Habits, duration_s: float) -> Arm:
    """Return what devices say within a time, of one metric.

    Args:
        devices: How many there are of each class; of those of which nothing is known, the whole is taken.
        habits: What devices do.
        duration_s: For how long.
    """
    arms: dict[str, Arm] = {}
    for name, number in devices.items():
        habit = habits.classes.get(name, habits.whole)
        saying = math.floor(number * habit.heard_share + 0.5)
        if saying:
            said = _tally(saying, habit, habits.correlation or 0.0, duration_s)
            arms[name] = Arm(saying, saying, 0, (said,))
    return gathered(arms, 1)


def _tally(devices: int, habit: Habit, rho: float, duration_s: float) -> Tally:
    wanted = devices * habit.per_s * duration_s
    cells = {cell: round(wanted * share) for cell, share in habit.cells.items()}
    cells = {cell: number for cell, number in cells.items() if number}
    total = sum(cells.values()) if habit.cells else round(wanted)
    bad = sum(cell * number for cell, number in cells.items()) if habit.cells else round(wanted * habit.mean)
    squared = max(float(total), total * (total / devices) * habit.uneven)
    mean, variance = habit.mean, habit.variance
    spread = variance * total + variance * (squared - total) * rho * (devices - 1) / devices
    return Tally(bad, total, mean * mean * squared + spread, mean * squared, squared, cells)
