"""Tests for concept drift: how far each has come, and how far they have read the records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from hub.store.concept_rows import ConceptKey, ConceptRow


class QualityStore(Protocol):
    """Tests for concept drift."""

    def quality_position(self) -> int:
        """Return how far the tests have read the records."""
        ...

    def save_concepts(self, position: int, rows: Sequence[ConceptRow]) -> None:
        """Store tests and the position that they include, in one transaction."""
        ...

    def concepts(self, keys: Iterable[ConceptKey]) -> dict[ConceptKey, ConceptRow]:
        """Return those of the tests that there are."""
        ...

    def concepts_of(
        self, model: str, *, device_id: str | None = None, raised: bool = False
    ) -> list[ConceptRow]:
        """Return a model's tests, by device and version.

        Args:
            model: Name of the model.
            device_id: Only this one's, or those of all devices together; None for all that there are.
            raised: Only those whose alarm is raised.
        """
        ...

    def raised_concepts(self) -> list[ConceptRow]:
        """Return the tests of all models whose alarm is raised, by device."""
        ...

    def strong_concepts(self, least: float) -> list[ConceptRow]:
        """Return the tests with at least so much evidence."""
        ...
