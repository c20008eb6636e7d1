"""Captured samples, and by what policies devices capture them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fleet.protocol.capture import CapturePolicy
from fleet.protocol.samples import SampleMessage
from hub.store.rows import Action
from hub.store.sample_rows import CaptureRow, SampleFilter, SampleRow


class SampleStore(Protocol):
    """Samples, and the policies by which devices capture them."""

    def set_capture(
        self, model: str, device_ids: Sequence[str], policy: CapturePolicy | None, action: Action
    ) -> list[str]:
        """Set the policy of devices for a model, or take it back.

        A device whose policy changes gets the next sequence number, and the action is remembered of it.

        Args:
            model: Name of the model.
            device_ids: Which devices; those that do not exist are left out.
            policy: None: nothing is captured.
            action: What is remembered of it.

        Returns:
            The devices whose policy changed.
        """
        ...

    def captures(self, *, model: str | None = None, device_id: str | None = None) -> list[CaptureRow]:
        """Return the policies that are set, by model and device."""
        ...

    def add_sample(self, device_id: str, message: SampleMessage, *, now_s: float, budget_bytes: int) -> bool:
        """Keep a sample that was not taken before; tell whether it was new.

        A device's samples come in the order of their numbers: one that is not above the last of its stream
        was taken before, also if it was deleted since. Over the budget the oldest samples of the fleet go.

        Args:
            device_id: From where.
            message: The sample and its number.
            now_s: When it came.
            budget_bytes: How much all samples may take.
        """
        ...

    def samples(self, wanted: SampleFilter, *, after: int = 0, limit: int = 100) -> list[SampleRow]:
        """Return samples by number, without their inputs."""
        ...

    def sample_data(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Return the encoded samples with these numbers; those that are gone are left out."""
        ...

    def delete_samples(self, wanted: SampleFilter) -> int:
        """Delete samples for good; return how many."""
        ...

    def sample_bytes(self, device_id: str, model: str, *, since_s: float) -> int:
        """Return how many bytes of samples there are of a device and model, received since a time."""
        ...
