"""What the agent asks of an inference runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from fleet.protocol.manifest import Signature

Tensors = Mapping[str, NDArray[Any]]
"""Arrays by the name of the tensor in the model's signature."""


class LoadedModel(Protocol):
    """A model in memory, ready to answer. One thread at a time uses it."""

    @property
    def platform(self) -> str:
        """Runtime and format, ``<project>_<format>`` as the Open Inference Protocol names platforms."""

    @property
    def accelerator(self) -> str:
        """What computes it, one of the runtime's `Runtime.accelerators`."""

    def infer(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Return what is computed from the inputs: outputs and embedding, as the signature names them.

        Raises:
            InferenceFailed: The runtime refused the inputs or failed while computing.
        """


class Runtime(Protocol):
    """Loads models of one kind."""

    def accelerators(self) -> Sequence[str]:
        """Return what can compute models here, best first; the last runs whatever the runtime runs."""

    def load(self, path: Path, signature: Signature, accelerator: str = "") -> LoadedModel:
        """Load a model whose bytes were verified.

        Args:
            path: The model's file.
            signature: What the manifest says that it takes and gives.
            accelerator: What is to compute it, one of `accelerators`; empty: the last of them.

        Raises:
            VariantUnsupported: This runtime cannot run the file so, or the file has another signature.
        """
