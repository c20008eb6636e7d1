"""All models of the device: orders in, states out."""

from __future__ import annotations

import asyncio

from agent.blobs import BlobStore
from agent.life.shell import ModelShell, Surroundings
from agent.life.store import Stored
from agent.life.terms import Life, Ordered, Release, Withdrawn, model_state
from fleet.protocol.assignment import Assignment
from fleet.protocol.errors import InvalidManifest, StorageCorrupt
from fleet.protocol.messages import ModelState


class Models:
    """The lives of all models.

    Args:
        around: What their shells work with.
        blobs: Where blobs are kept.
    """

    def __init__(self, around: Surroundings, blobs: BlobStore) -> None:
        self._around = around
        self._blobs = blobs
        self._shells: dict[str, ModelShell] = {}

    def start(self) -> None:
        """Read every model's state and go on from it."""
        found, damaged = self._around.store.load()
        for error in damaged:
            self._around.on_incident(error)
        self._shells = {model: self._new_shell(model, stored) for model, stored in found.items()}
        for shell in list(self._shells.values()):
            shell.start()

    def apply(self, assignment: Assignment) -> None:
        """Begin to carry out an accepted assignment: new orders first, then removals."""
        for order in assignment.models:
            if order.model not in self._shells:
                self._shells[order.model] = self._new_shell(order.model, Stored(Life()))
            release = Release(order.version, order.manifest_sha256.hex(), order.variant)
            ordered = Ordered(
                order.deployment_id,
                release,
                order.alternatives,
                order.policy,
                order.shadow_s,
                order.maintenance,
                order.mode,
            )
            self._shells[order.model].handle(ordered)
        wanted = {order.model for order in assignment.models}
        for model in [model for model in self._shells if model not in wanted]:
            self._shells[model].handle(Withdrawn())

    def states(self) -> tuple[ModelState, ...]:
        """Return what the device holds of each model."""
        waiting_for = self._around.workshop.gate.waiting_for
        return tuple(
            model_state(model, shell.life, self._answering(model), waiting_for(model))
            for model, shell in sorted(self._shells.items())
        )

    def installed(self, model: str) -> frozenset[Release]:
        """Return the versions of a model that are kept on the device."""
        shell = self._shells.get(model)
        return frozenset() if shell is None else shell.life.installed

    def are_ready(self) -> bool:
        """Tell whether every model that has a version to answer with answers."""
        return all(
            shell.life.serving is None or self._answering(model) is not None
            for model, shell in self._shells.items()
        )

    async def close(self) -> None:
        """End every model's life in an orderly way, for now; all at once, so that none waits for another."""
        await asyncio.gather(*(shell.close() for shell in list(self._shells.values())))

    def _new_shell(self, model: str, stored: Stored) -> ModelShell:
        return ModelShell(model, stored, self._around, self._clean)

    def _answering(self, model: str) -> Release | None:
        hosted = self._around.host.get(model)
        return None if hosted is None else hosted.release

    def _clean(self, model: str) -> None:
        """Remove what a model no longer needs, and blobs that no model needs.

        Raises:
            StorageError: Something cannot be removed.
        """
        shell = self._shells[model]
        life = shell.life
        self._around.slots.keep(model, life.installed)
        self._blobs.keep(self._needed_blobs())
        if life == Life() and not shell.has_unsent_reports:
            self._around.store.forget(model)
            del self._shells[model]

    def _needed_blobs(self) -> set[str]:
        needed = set()
        for model, shell in self._shells.items():
            for release in shell.life.installed:
                try:
                    needed |= {file.sha256 for file in self._around.slots.files(model, release)}
                except (StorageCorrupt, InvalidManifest):
                    continue  # its manifest is not here yet, so none of its blobs is
        return needed
