"""From what devices send to what reaches the hub: being there, delay, loss, doubles, lateness."""

from __future__ import annotations

import numpy as np

from hub.simulation.calendar import Rows
from hub.simulation.devices import Devices
from hub.simulation.scenario import Reports

_DELAY_S = 0.2
"""Mean time of a message on its way."""


def delivered(rows: Rows, devices: Devices, reports: Reports, rng: np.random.Generator) -> Rows:
    """Return rows as they arrive: some not, some twice.

    Args:
        rows: With fields ``device`` and ``happened_s``; ``arrives_s`` is set.
        devices: The fleet.
        reports: What happens on the way.
        rng: Draws it.
    """
    count = len(rows)
    sent_s = devices.up_from(rows["device"], rows["happened_s"])
    late_s = np.where(rng.random(count) < reports.late, rng.uniform(0.0, reports.late_s, count), 0.0)
    rows["arrives_s"] = sent_s + late_s + rng.exponential(_DELAY_S, count)
    kept = rows[rng.random(count) >= reports.lost] if reports.lost else rows
    if not reports.doubled:
        return kept
    again = kept[rng.random(len(kept)) < reports.doubled].copy()
    again["arrives_s"] += rng.exponential(10.0, len(again))
    return np.concatenate((kept, again))
