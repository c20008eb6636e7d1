"""Which runtimes this device has. Looking does not import them: that costs memory and time."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple, cast

from agent.runtimes.protocol import Runtime
from fleet.protocol.errors import VariantUnsupported


class _Entry(NamedTuple):
    """Where a runtime is found: its distribution's name, our module and class."""

    distribution: str
    module: str
    adapter: str


_RUNTIMES = {"onnxruntime": _Entry("onnxruntime", "agent.runtimes.onnx", "OnnxRuntime")}


def available_runtimes() -> dict[str, str]:
    """Return the names and versions of the runtimes that are installed."""
    found = {}
    for name, entry in _RUNTIMES.items():
        try:
            found[name] = version(entry.distribution)
        except PackageNotFoundError:
            continue
    return found


def runtime(name: str) -> Runtime:
    """Return a runtime by the name that manifests use.

    Raises:
        VariantUnsupported: This device does not have it.
    """
    entry = _RUNTIMES.get(name)
    if entry is None or name not in available_runtimes():
        raise VariantUnsupported(f"This device has no runtime {name!r:.80}.")
    return cast(Runtime, getattr(import_module(entry.module), entry.adapter)())
