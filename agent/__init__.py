"""The device's shell: MQTT, trust, delivery, installed versions, runtimes, local inference, telemetry.

It installs from the base package alone and imports of ours only `fleet`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.embedded import open_model

__all__ = ["open_model"]

# NumPy's BLAS would start a thread for each core. This process computes in onnxruntime, and the setting
# cuts its cold start by two thirds. It must stand before NumPy is imported anywhere below.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def __getattr__(name: str) -> Any:
    """Import what applications use of this package when they do: whoever needs none of it pays for none."""
    if name == "open_model":
        from agent.embedded import open_model

        return open_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
