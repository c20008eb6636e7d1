"""Which devices belong to which rollout, while it is under way."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class ClaimStore(Protocol):
    """Which devices belong to which rollout, while it is under way.

    Nothing here changes claims: they follow from every change of a rollout, in the same transaction, as
    `fleet.rollout.claims.changed_claims` says. A change by which a device would belong to two rollouts of a
    model raises `Conflict`.
    """

    def claimed_by(self, model: str, device_ids: Collection[str]) -> dict[str, int]:
        """Return the number of the rollout of a model that has each device; devices of none are left out."""
        ...
