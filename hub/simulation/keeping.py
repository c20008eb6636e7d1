"""Where the steps of a simulated rollout are kept: nowhere, or in the hub's own store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, Self

from fleet.protocol.assignment import ModelOrder
from fleet.protocol.errors import Conflict
from fleet.rollout.events import Assign
from fleet.rollout.state.rollout import Rollout
from hub.simulation.devices import MODEL, Devices
from hub.simulation.scenario import START_S
from hub.store.rows import NewDevice, OrderChange
from hub.store.sqlite import SqliteStore

NUMBER = 1


class Keeping(Protocol):
    """Keeps a rollout as it goes."""

    def create(self, build: Callable[[int], Rollout]) -> Rollout:
        """Keep the rollout that was created, and return it."""

    def keep(self, before: Rollout, after: Rollout, position: int, orders: Sequence[Assign]) -> None:
        """Keep a step: the state that it led to, the records it was of, and its orders."""


class InMemory:
    """Keeps nothing: the state that goes on is all there is."""

    def create(self, build: Callable[[int], Rollout]) -> Rollout:
        """Return the rollout."""
        return build(NUMBER)

    def keep(self, before: Rollout, after: Rollout, position: int, orders: Sequence[Assign]) -> None:
        """Do nothing."""


class InStore:
    """Keeps each step in the hub's SQLite store, in one transaction, as the hub does.

    Args:
        folder: For the store's file; there must be none yet.
        devices: They are enrolled.

    Raises:
        Conflict: There is a store.
    """

    def __init__(self, folder: Path, devices: Devices) -> None:
        path = folder / "hub.db"
        if path.exists():
            raise Conflict(f"There is a store in {folder} already.", remedy="Name an empty folder.")
        folder.mkdir(parents=True, exist_ok=True)
        self._store = SqliteStore(path)
        for number, device_id in enumerate(devices.ids):
            row = devices.kinds[devices.kind[number]].row(device_id)
            token = f"token of {device_id}"
            self._store.add_enrolment_token(token, created_at_s=START_S, expires_at_s=START_S + 60.0)
            new = NewDevice(device_id, "", row.attributes, row.capabilities)
            self._store.enrol(new, token_sha256=token, now_s=START_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def create(self, build: Callable[[int], Rollout]) -> Rollout:
        """Store the rollout, and return it."""
        return self._store.create_rollout(build, START_S).state

    def keep(self, before: Rollout, after: Rollout, position: int, orders: Sequence[Assign]) -> None:
        """Store a step."""
        changes = [OrderChange(order.device_id, MODEL, _order(order)) for order in orders]
        self._store.apply_step(after, previous=before, position=position, changes=changes)


def _order(order: Assign) -> ModelOrder | None:
    if order.version is None:
        return None
    return ModelOrder(
        MODEL, order.version, bytes([order.version % 256]) * 32, "onnx-fp32", order.deployment_id
    )
