"""Why an answer is empty: a question about what does not exist is refused, and is no answer of nothing.

It is asked only once nothing was found, so that what devices claim to run and the hub does not know is still
answered where it was counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from fleet.protocol.errors import InvalidInput, NotFound
from hub.query.sums import Question
from hub.store.protocols import RegistryStore, TagStore
from hub.store.rows import DeviceRow
from hub.store.telemetry_rows import EVERY_DEVICE, ONE_DEVICE

_BUILT_IN = frozenset({EVERY_DEVICE, ONE_DEVICE, "hardware", "architecture"})


def check_devices(found: Mapping[str, DeviceRow], where: str) -> None:
    """Refuse a target that means no device; raises `NotFound`."""
    if not found:
        raise NotFound(
            f"No device is meant by {where!r:.200}.",
            remedy="`muster fleet devices --where …` shows which a target means.",
        )


class Known(RegistryStore, TagStore, Protocol):
    """What is asked of the store."""


def check_answer(store: Known, question: Question, answer: Sequence[object]) -> None:
    """Refuse a question whose answer is empty, if it is about what does not exist.

    Args:
        store: Knows versions and attributes.
        question: What was asked.
        answer: What was found.

    Raises:
        NotFound: There is no such version.
        InvalidInput: No device has the attribute that it is grouped by.
    """
    if answer:
        return
    if question.version is not None:
        store.version(question.model, question.version)
    if question.key not in _BUILT_IN and question.key not in store.attribute_names():
        raise InvalidInput(
            f"No device has the attribute {question.key!r:.80}, so there is nothing to group by it.",
            remedy="Use device, version, hardware or architecture.",
        )
