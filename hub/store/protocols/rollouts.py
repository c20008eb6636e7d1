"""Rollouts: state, position and orders change in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence, Set
from typing import Protocol

from fleet.rollout.claims import Claim
from fleet.rollout.state.rollout import HistoryEntry, Rollout, Status
from hub.store.rows import OrderChange, RolloutHead, RolloutRow, RolloutStep, SummaryRow, Superseded


class RolloutStore(Protocol):
    """Rollouts: state, position and orders change in one transaction."""

    def create_rollout(self, build: Callable[[int], Rollout], now_s: float) -> RolloutRow:
        """Number and store a new rollout.

        Args:
            build: Makes the rollout from its number.
            now_s: Unix time.

        Raises:
            Conflict: It is under way already, and another rollout of the model has one of its devices.
        """
        ...

    def apply_step(
        self,
        state: Rollout,
        *,
        previous: Rollout,
        position: int,
        changes: Sequence[OrderChange],
    ) -> None:
        """Store a step: the new state, and the orders that follow from it.

        Every device in ``changes`` gets the next sequence number. Of the devices only those are written whose
        part changed.

        Args:
            state: After the step.
            previous: The state that the step was made from.
            position: How far the rollout has read the records.
            changes: The orders.

        Raises:
            Conflict: The stored rollout no longer has the revision of ``previous``, or another rollout of
                the model has one of its devices.
        """
        ...

    def apply_steps(self, steps: Sequence[RolloutStep]) -> None:
        """Store steps of several rollouts, in this order, all or none; see `apply_step`.

        A device that one of them gives up may belong to another after it.
        """
        ...

    def begin_rollback(
        self,
        build: Callable[[int], tuple[Rollout, Sequence[OrderChange]]],
        *,
        superseded: Sequence[Superseded],
        position: int,
        now_s: float,
    ) -> RolloutRow:
        """Put rollouts aside and begin another with its orders, all at once: there is no moment between.

        Args:
            build: Makes the new rollout, already started, and its orders from its number.
            superseded: The rollouts that are put aside.
            position: From where the new rollout reads the records.
            now_s: Unix time.

        Raises:
            Conflict: One of the rollouts was changed by someone else, or yet another one has a device.
        """
        ...

    def rollout(self, number: int) -> RolloutRow:
        """Return a rollout; raises `NotFound`."""
        ...

    def rollout_summary(self, number: int) -> SummaryRow:
        """Return a rollout without its devices; raises `NotFound`."""
        ...

    def rollouts(
        self, *, model: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[SummaryRow]:
        """Return rollouts without their devices, newest first."""
        ...

    def decisions(self, number: int, *, after: int = 0, limit: int = 100) -> list[HistoryEntry]:
        """Return decisions about a rollout, oldest first.

        Args:
            number: Of the rollout.
            after: How many of the oldest are left out.
            limit: Most decisions.
        """
        ...

    def rollout_counts(self) -> dict[Status, int]:
        """Return how many rollouts there are by status; a status of none is left out."""
        ...

    def count_awaiting_approval(self) -> int:
        """Return how many rollouts have a stage that waits for approval."""
        ...

    def newest_rollouts(self) -> list[RolloutHead]:
        """Return the newest rollout of each model that was started, and all under way, by model."""
        ...

    def open_rollouts(self) -> list[RolloutRow]:
        """Return the rollouts that were started and have not ended."""
        ...

    def unstarted_claims(self, model: str, device_ids: Set[str]) -> list[Claim]:
        """Return which devices rollouts would reach that were created and neither started nor ended.

        Args:
            model: Theirs.
            device_ids: Of these devices.
        """
        ...

    def brought_by(self, rollouts: Collection[int], device_ids: Iterable[str]) -> dict[str, int]:
        """Return the newest of some rollouts in which each device succeeded; others are left out.

        Args:
            rollouts: Their numbers.
            device_ids: Of these devices.
        """
        ...
