"""What a device's owner says about how its runtimes compute."""

from __future__ import annotations

from typing import NamedTuple


class RuntimeOptions(NamedTuple):
    """How runtimes compute.

    Attributes:
        execution_providers: Those of ONNX Runtime to try, best first, as `agent.runtimes.providers` reads
            them; empty: the best that are here.
        litert_delegate: Path of a shared library with a delegate for LiteRT; empty for none.
        device_memory_bytes: Most memory of its own that an accelerator may take for a model; 0: as it likes.
        prepacks: Whether weights of ``.ort`` files may be copied into the order that kernels like.
    """

    execution_providers: tuple[str, ...] = ()
    litert_delegate: str = ""
    device_memory_bytes: int = 0
    prepacks: bool = True
