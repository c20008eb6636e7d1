"""The shell of drift alarms: looks at the counts of a device and version when there are enough of them.

A look compares the counts since the last look with the reference profile in the version's manifest
(`fleet.drift.alarms`). What counts as a discovery depends on the evidence of everything else that is watched:
of every device, the versions that it is to run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.drift.alarms import LEAST_THRESHOLD, AlarmChange, FeatureDrift, advance_alarm, judge_drift
from fleet.drift.profile import Profile
from fleet.protocol.errors import MusterError
from hub.store.protocols import DriftStore
from hub.store.rows import DriftRow
from hub.store.telemetry_rows import VersionKey
from hub.telemetry.reading import Reference

log = logging.getLogger(__name__)


class Block(NamedTuple):
    """What was counted of a device and version since the last look.

    Attributes:
        which: Of which.
        profile: The counts.
        until_s: When the last window of it ended.
    """

    which: VersionKey
    profile: Profile
    until_s: float


class _Watched:
    """Evidence of everything that is watched, as the looks of a step change it.

    Args:
        store: Knows it as it was before.
        looked_at: What the step looks at.
    """

    def __init__(self, store: DriftStore, looked_at: Sequence[VersionKey]) -> None:
        self._store = store
        self._to_run = store.to_run(looked_at)
        self._devices: dict[str, int] = {}
        strong = store.strong_evidence()
        self._owners = {(each.device_id, each.model, each.version): row for row, each in enumerate(strong)}
        self._values = np.array([value for each in strong for value in each.values], dtype=np.float64)
        self._of = np.repeat(np.arange(len(strong)), [len(each.values) for each in strong])

    def keep(self, row: DriftRow) -> None:
        """Take in what is known of a device and version now; weak evidence cannot matter to others."""
        which = (row.device_id, row.model, row.version)
        strong = [value for value in row.alarm.evidence.values() if value >= LEAST_THRESHOLD]
        if which in self._to_run and (strong or which in self._owners):
            owner = self._owners.setdefault(which, len(self._owners))
            others = self._of != owner
            self._values = np.concatenate([self._values[others], strong])
            self._of = np.concatenate([self._of[others], np.full(len(strong), owner)])

    def beside(self, which: VersionKey) -> NDArray[np.float64]:
        """Return the evidence of all others."""
        if which not in self._owners:
            return self._values
        others: NDArray[np.float64] = self._values[self._of != self._owners[which]]
        return others

    def devices(self, model: str) -> int:
        """Return how many devices are to run the model."""
        if model not in self._devices:
            self._devices[model] = self._store.devices_to_run(model)
        return self._devices[model]


class Looks:
    """Takes looks.

    Args:
        store: Knows the alarms so far.
        reference: See `hub.telemetry.reading.Reference`.
    """

    def __init__(self, store: DriftStore, reference: Reference) -> None:
        self._store = store
        self._reference = reference

    def look(self, blocks: Sequence[Block]) -> list[DriftRow]:
        """Return the alarms after a look at each of the blocks, in their order."""
        if not blocks:
            return []
        which = [block.which for block in blocks]
        watched, before = _Watched(self._store, which), self._store.drift_of(which)
        looked = []
        for block in blocks:
            row = self._looked_at(before.get(block.which, DriftRow(*block.which)), block, watched)
            watched.keep(row)
            looked.append(row)
        return looked

    def _looked_at(self, row: DriftRow, block: Block, watched: _Watched) -> DriftRow:
        try:
            _, reference = self._reference(row.model, row.version)
            judged = judge_drift(
                reference,
                block.profile,
                row.alarm,
                others=watched.beside(block.which),
                watched=len(reference.features) * watched.devices(row.model),
            )
        except MusterError as error:
            log.error("Drift of %s was not judged: %s", row.device_id, error)
            return row
        alarm, change = advance_alarm(row.alarm, judged)
        if change is not AlarmChange.NONE:
            log.warning("Drift alarm %s: %s", change.value, _sentence(row, judged))
        since_s = row.raised_at_s if row.alarm.raised else block.until_s
        return msgspec.structs.replace(
            row,
            alarm=alarm,
            last_look=tuple(judged),
            raised_at_s=since_s if alarm.raised else None,
            looked_at_s=block.until_s,
        )


def _sentence(row: DriftRow, judged: list[FeatureDrift]) -> str:
    evidence = "; ".join(drift.sentence for drift in judged if drift.drifted)
    return f"{row.device_id}, {row.model} version {row.version}: {evidence or 'calm again'}"
