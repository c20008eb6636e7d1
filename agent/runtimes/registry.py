"""Which runtimes this device has. Looking does not import them: that costs memory and time."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple, cast

from agent.runtimes.options import RuntimeOptions
from agent.runtimes.protocol import Runtime
from fleet.protocol.errors import VariantUnsupported
from fleet.protocol.requirement import version_key


class _Entry(NamedTuple):
    """Where a runtime is found.

    Attributes:
        distribution: Name of the package that brings it.
        module: Our module for it.
        adapter: Our class for it.
        numpy_below: First major version of NumPy with which it does not work, if there is one.
        builds: Packages that bring the same for other accelerators, in its place.
    """

    distribution: str
    module: str
    adapter: str
    numpy_below: int | None = None
    builds: tuple[str, ...] = ()


RUNTIMES = {
    "onnxruntime": _Entry(
        "onnxruntime",
        "agent.runtimes.onnx",
        "OnnxRuntime",
        builds=("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-qnn"),
    ),
    "litert": _Entry("ai-edge-litert", "agent.runtimes.litert", "LiteRt"),
    "tflite-runtime": _Entry("tflite-runtime", "agent.runtimes.litert", "TfliteRuntime", numpy_below=2),
}
"""Every runtime that the agent can use, by the name that manifests and the hub know it by."""


def available_runtimes() -> dict[str, str]:
    """Return the names and versions of the runtimes that are installed and work with what is installed."""
    found = {}
    for name, entry in RUNTIMES.items():
        installed = next(filter(None, map(_installed, (entry.distribution, *entry.builds))), None)
        if installed is None:
            continue
        if entry.numpy_below is None or version_key(version("numpy")) < (entry.numpy_below,):
            found[name] = installed
    return found


def runtime(name: str, options: RuntimeOptions = RuntimeOptions()) -> Runtime:  # noqa: B008 - cannot change
    """Return a runtime by the name that manifests use.

    Args:
        name: The runtime's.
        options: How it computes.

    Raises:
        VariantUnsupported: This device does not have it.
    """
    entry = RUNTIMES.get(name)
    if entry is None or name not in available_runtimes():
        raise VariantUnsupported(f"This device has no runtime {name!r:.80}.")
    return cast(Runtime, getattr(import_module(entry.module), entry.adapter)(options))


def _installed(distribution: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
