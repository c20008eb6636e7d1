"""What the store keeps of tests for concept drift, as plain values."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from fleet.quality.concept import ConceptState

EVERY_DEVICE = ""
"""Stands for all devices together where a device's id would stand."""


class ConceptKey(NamedTuple):
    """Which test it is: of a version on one device, or on `EVERY_DEVICE`."""

    device_id: str
    model: str
    version: int


class ConceptRow(msgspec.Struct, frozen=True):
    """The test of one version on one device, or on all of them together."""

    device_id: str
    model: str
    version: int
    state: ConceptState = ConceptState()

    @property
    def key(self) -> ConceptKey:
        """Which test it is."""
        return ConceptKey(self.device_id, self.model, self.version)
