"""A working copy of a rollout during one step of the engine.

This is where purity is kept: the engine changes the draft, never the rollout it was given. The draft
collects the deployments that change and the commands that follow, and `finished` builds the next state out
of them once, however many devices the step touched.
"""

from __future__ import annotations

from typing import Any

import msgspec

from fleet.rollout.events import Announce, Assign, Command
from fleet.rollout.state.columns import WAITING, Deployment, Rows
from fleet.rollout.state.deployments import Deployments
from fleet.rollout.state.editing import Editing
from fleet.rollout.state.rollout import HISTORY_KEPT, Happening, HistoryEntry, Rollout, StageProgress


class Draft:
    """The rollout as it is becoming.

    Attributes:
        rollout: All but the deployments and their tally, which are up to date only after `finished`.
        editing: The deployments.
        now_s: Hub time of the step, Unix seconds.
    """

    def __init__(self, rollout: Rollout, now_s: float) -> None:
        self.rollout = rollout
        self.now_s = now_s
        self.editing = Editing(rollout.deployments, rollout.tally)
        self._before = rollout
        self._commands: list[Command] = []

    @property
    def stage(self) -> StageProgress:
        """The current stage; the rollout has begun."""
        return self.rollout.stages[-1]

    @property
    def reached(self) -> int:
        """How many devices the stages that have begun reach."""
        return sum(map(sum, self.editing.tally[: self.rollout.stage_index + 1]))

    def deployment(self, index: int) -> Deployment:
        """Return a deployment as this step has left it so far."""
        return self.editing.get(index)

    def put(self, deployment: Deployment) -> None:
        """Exchange a deployment for its next value."""
        self.editing.put(deployment)

    def change(self, **fields: Any) -> None:
        """Give fields of the rollout new values."""
        self.rollout = msgspec.structs.replace(self.rollout, **fields)

    def change_stage(self, number: int, **fields: Any) -> None:
        """Give fields of a stage that has begun new values.

        Args:
            number: From 0.
            fields: As in `StageProgress`.
        """
        stages = list(self.rollout.stages)
        stages[number] = msgspec.structs.replace(stages[number], **fields)
        self.change(stages=tuple(stages))

    def recast(self, cohort_ends: tuple[int, ...], deployments: Deployments) -> None:
        """Put other deployments in the place of all there are; what was written to them is lost."""
        tally = deployments.tally(len(cohort_ends)).tolist()
        self.change(cohort_ends=cohort_ends, deployments=deployments, tally=tuple(map(tuple, tally)))
        self.editing = Editing(deployments, self.rollout.tally)

    def extend(self, device_ids: list[str], rows: Rows) -> None:
        """Add devices that wait for their order after all others."""
        deployments = self.editing.finished().plus(device_ids, rows)
        tally = [list(counts) for counts in self.editing.tally]
        for stage in rows["stage"].tolist():
            tally[stage][WAITING] += 1
        self.change(deployments=deployments, tally=tuple(map(tuple, tally)))
        self.editing = Editing(deployments, self.rollout.tally)

    def outdate_verdict(self) -> None:
        """Note that something came that could change the verdict."""
        if not self.rollout.look.is_outdated:
            self.change(look=msgspec.structs.replace(self.rollout.look, is_outdated=True))

    def due_by(self, at_s: float) -> None:
        """Note that something of a device is due at a time."""
        known_s = self.rollout.next_due_s
        if known_s is None or at_s < known_s:
            self.change(next_due_s=at_s)

    def assign(self, device_id: str, deployment_id: str, version: int | None, *, shadow_s: int = 0) -> None:
        """Command an order to a device."""
        self._commands.append(Assign(device_id, deployment_id, version, shadow_s))

    def announce(self, kind: Happening, text: str) -> None:
        """Tell the operators of something that is not a decision of the rollout as a whole."""
        self._commands.append(Announce(kind, text))

    def decide(self, kind: Happening, text: str) -> None:
        """Tell the operators of a decision, and keep it in the history."""
        self.announce(kind, text)
        history = (*self.rollout.history, HistoryEntry(self.now_s, kind, text))[-HISTORY_KEPT:]
        self.change(history=history, decisions=self.rollout.decisions + 1)

    def finished(self) -> tuple[Rollout, tuple[Command, ...]]:
        """Return the next state, the very same object if nothing changed, and the commands."""
        deployments = self.editing.finished()
        if deployments is not self.rollout.deployments:
            self.change(deployments=deployments, tally=self.editing.tally)
        if self.rollout is not self._before:
            self.change(revision=self._before.revision + 1)
        return self.rollout, tuple(self._commands)
