"""Which version devices go back to: what `fleet.rollout.proven` asks of the store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from fleet.protocol.errors import Conflict, NotFound
from fleet.rollout import proven
from fleet.rollout.proven import NEVER_BROUGHT, Standing
from hub.registry.lookups import Released
from hub.store.protocols import RolloutStore
from hub.variants import ROLLOUTS_LOOKED_AT


class Proven:
    """What the latest rollouts of a model say of its versions, read once.

    Args:
        store: Keeps rollouts.
        is_released: Whether devices can be brought a version.
        model: Name of the model.
    """

    def __init__(self, store: RolloutStore, is_released: Callable[[int], bool], model: str) -> None:
        self._store = store
        self._is_released = is_released
        rows = store.rollouts(model=model, limit=ROLLOUTS_LOOKED_AT)
        self._known = proven.standings(row.state for row in rows)

    def standing(self, version: int) -> Standing:
        """Return what is to be said of a version."""
        return self._known.get(version, NEVER_BROUGHT)

    def released_below(self, version: int) -> Iterator[int]:
        """Return the released versions below one, newest first; those that were revoked are none."""
        return (older for older in range(version - 1, 0, -1) if self._is_released(older))

    def way_back(self, running: Mapping[str, int]) -> int | None:
        """Return the version that some devices go back to; None if none is proven.

        Args:
            running: What each of them should run.
        """
        candidates = self.released_below(max(running.values(), default=0))
        return proven.way_back(running, candidates, self._known, self._ran)

    def doubt(self, version: int, device_ids: Collection[str]) -> str:
        """Return why devices are led to a version by name alone, a sentence; empty if they need not be."""
        return proven.doubt(version, device_ids, self._known, self._ran)

    def ways_back(self, device_ids: Collection[str], leaves: int, *, but: int) -> dict[str, list[int]]:
        """Return for each device alone the versions below one that it can be led to, the best one first.

        Args:
            device_ids: The devices.
            leaves: What they would go back to, if that could be.
            but: A version that they come from.
        """
        found: dict[str, list[int]] = {device_id: [] for device_id in device_ids}
        others: list[int] = []
        for version in self.released_below(leaves):
            standing = self.standing(version)
            if version == but or standing.rejected or not standing.brought_by:
                continue
            for device_id in self._ran(standing.brought_by, device_ids):
                found[device_id].append(version)
            if standing.is_proven:
                others.append(version)
        return {
            device_id: [*ran, *(version for version in others if version not in ran)]
            for device_id, ran in found.items()
        }

    def _ran(self, rollouts: Collection[int], device_ids: Collection[str]) -> Collection[str]:
        return self._store.brought_by(rollouts, device_ids).keys()


def proven_of(store: RolloutStore, released: Released, model: str) -> Proven:
    """Return what is proven of a model.

    Args:
        store: Keeps rollouts.
        released: Looks up versions that may be rolled out.
        model: Name of the model.
    """

    def is_released(version: int) -> bool:
        try:
            released(model, version)
        except (NotFound, Conflict):
            return False
        return True

    return Proven(store, is_released, model)
