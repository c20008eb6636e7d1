"""What devices are chosen by: the tags that operators gave them, and the names of their attributes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from hub.store.rows import Action


class TagStore(Protocol):
    """What devices are chosen by: a change of tags and its action are one transaction."""

    def attribute_names(self) -> set[str]:
        """Return the names of all attributes that some device has."""
        ...

    def tags(self, device_id: str) -> tuple[str, ...]:
        """Return a device's tags, sorted; none if there is no such device."""
        ...

    def tags_of(self, device_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Return the tags of those of some devices that have any, sorted."""
        ...

    def tag(
        self, device_id: str, *, add: Sequence[str], remove: Sequence[str], action: Action
    ) -> tuple[str, ...]:
        """Change a device's tags; if nothing changes, no action is remembered.

        Args:
            device_id: Which device.
            add: Tags that it gets; those it has already are no error.
            remove: Tags that it loses, after those were added.
            action: What is remembered of it.

        Returns:
            Its tags then, sorted.

        Raises:
            NotFound: There is no such device.
            InvalidInput: It would have too many.
        """
        ...
