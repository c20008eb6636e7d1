"""The deployments of a rollout, in pages, so that one can change without copying the others.

::

    pages:  ( (d0 … d255), (d256 … d511), … )        a deployment's index is its place
    index:  { device id: index }                     fixed when the rollout is created

All of it is immutable by contract: `replaced` builds new pages for what changed and one new tuple of pages,
and shares the rest, so that the old value stays what it was. To change one deployment of a million copies
256 + 3,907 references.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

import msgspec

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause

PAGE_SIZE = 256


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One order to one device, and how far it got.

    Attributes:
        deployment_id: Echoed by the device in every report.
        state: Where it stands.
        since_s: When it came there, hub time.
        ordered_s: When the order was given, hub time; None while it was not.
        cause: Why it failed.
    """

    deployment_id: str
    state: DeploymentState
    since_s: float
    ordered_s: float | None = None
    cause: Cause | None = None

    @property
    def is_open(self) -> bool:
        """Whether the device was sent the order and has not ended it."""
        return self.ordered_s is not None and not self.state.is_terminal


class Deployment(msgspec.Struct, frozen=True, omit_defaults=True):
    """One device's part in a rollout.

    Attributes:
        index: Its place in the rollout's order.
        device_id: The device.
        stage: The stage that reaches it, from 0.
        previous_version: What the device ran before, and goes back to; None if it had no version.
        attempt: The way forward, to the rollout's version.
        restore: The way back; None unless it was ordered.
        answers_since_s: When the new version began to answer, by the device's own clock.
        counted_in: Last stage in which the device's telemetry was counted; -1 for none.
    """

    index: int
    device_id: str
    stage: int
    previous_version: int | None
    attempt: Attempt
    restore: Attempt | None = None
    answers_since_s: float | None = None
    counted_in: int = -1

    @property
    def has_ended(self) -> bool:
        """Whether nothing is expected of the device any more."""
        return self.attempt.state.is_terminal and (self.restore is None or self.restore.state.is_terminal)

    @property
    def is_restored(self) -> bool:
        """Whether the way back was ordered and the device went it."""
        if self.restore is None:
            return False
        if self.previous_version is None:
            return self.restore.state is DeploymentState.REMOVED
        return self.restore.state is DeploymentState.SUCCEEDED


class Deployments(msgspec.Struct, frozen=True):
    """All deployments of a rollout, see the head of this file."""

    pages: tuple[tuple[Deployment, ...], ...]
    index: dict[str, int]

    @classmethod
    def of(cls, deployments: Iterable[Deployment]) -> Self:
        """Return the deployments in pages.

        Args:
            deployments: In ascending order of index, from 0, without gaps.
        """
        flat = tuple(deployments)
        return cls(
            pages=tuple(flat[i : i + PAGE_SIZE] for i in range(0, len(flat), PAGE_SIZE)),
            index={deployment.device_id: deployment.index for deployment in flat},
        )

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[Deployment]:
        for page in self.pages:
            yield from page

    def __getitem__(self, index: int) -> Deployment:
        if not 0 <= index < len(self.index):
            raise IndexError(index)
        return self.pages[index // PAGE_SIZE][index % PAGE_SIZE]

    def of_device(self, device_id: str) -> Deployment | None:
        """Return the device's deployment; None if the device is not of this rollout."""
        index = self.index.get(device_id)
        return None if index is None else self[index]

    def replaced(self, changed: Iterable[Deployment]) -> Deployments:
        """Return these deployments with some of them exchanged for others of the same index."""
        by_page: dict[int, dict[int, Deployment]] = {}
        for deployment in changed:
            number, place = divmod(deployment.index, PAGE_SIZE)
            by_page.setdefault(number, {})[place] = deployment
        pages = list(self.pages)
        for number, places in by_page.items():
            page = list(pages[number])
            for place, deployment in places.items():
                page[place] = deployment
            pages[number] = tuple(page)
        return Deployments(pages=tuple(pages), index=self.index)
