"""What a conversion asks of a runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from converters.data.samples import Inputs
from fleet.protocol.manifest import Signature
from fleet.protocol.requirement import RuntimeVersion


class Session(Protocol):
    """A model in memory."""

    def run(self, inputs: Inputs) -> NDArray[Any]:
        """Return the first output for one batch.

        Raises:
            ConversionFailed: The runtime refuses or fails.
        """


class Footprint(NamedTuple):
    """What a model asks of a device, read from its bytes.

    Attributes:
        runtimes: What runs it, the preferred one first.
        operators: The operators used, sorted.
        peak_memory_bytes: Estimate of weights and live tensors together, for one sample.
    """

    runtimes: tuple[RuntimeVersion, ...]
    operators: tuple[str, ...]
    peak_memory_bytes: int


@dataclass(frozen=True)
class Runtime:
    """A runtime.

    Attributes:
        name: As devices report it.
        open: Loads a model for its signature. Raises ConversionFailed.
        rounding: Returns how far answers may differ on other processors and releases (see
            `converters.runtimes.rounding`): from the model, its signature, golden inputs and a seed. Raises
            ConversionFailed.
        footprint: Describes a model. Raises ConversionFailed.
    """

    name: str
    open: Callable[[bytes, Signature], Session]
    rounding: Callable[[bytes, Signature, Inputs, int], float]
    footprint: Callable[[bytes, Signature], Footprint]


BATCH = 256
"""Samples that are run at once."""
