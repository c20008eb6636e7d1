"""Whether what a variant is said to need is what its model needs: no device may get what it cannot run."""

from __future__ import annotations

from pathlib import PurePosixPath

from converters.graphs.ort_format import is_ort_format
from converters.runtimes.runtime import Footprint
from converters.targets.ort import PORTABLE_DOMAINS
from fleet.protocol.errors import InvalidManifest
from fleet.protocol.manifest import Variant
from fleet.protocol.requirement import RuntimeVersion, version_key

_ORT_SUFFIX = ".ort"


def check_requirement(variant: Variant, footprint: Footprint, model: bytes) -> None:
    """Check that a requirement asks for no less than the model needs.

    Args:
        variant: Says what it needs.
        footprint: What its model needs.
        model: Its bytes.

    Raises:
        InvalidManifest: It asks for less, or the model runs on some processors only.
    """
    stated = variant.requirement
    if stated.size_bytes != len(model):
        raise InvalidManifest(
            f"Variant {variant.name} is said to have {stated.size_bytes} bytes; it has {len(model)}."
        )
    if stated.peak_memory_bytes < footprint.peak_memory_bytes:
        raise InvalidManifest(
            f"Variant {variant.name} is said to need {stated.peak_memory_bytes} bytes of memory; it needs"
            f" {footprint.peak_memory_bytes}."
        )
    for runtime in stated.runtimes:
        if not any(_covers(runtime, needed) for needed in footprint.runtimes):
            needs = " or ".join(map(str, footprint.runtimes))
            raise InvalidManifest(f"Variant {variant.name} is said to run on {runtime}; it needs {needs}.")
    _check_portable(variant, footprint)
    _check_file_name(variant, model)


def _covers(stated: RuntimeVersion, needed: RuntimeVersion) -> bool:
    return stated.name == needed.name and version_key(stated.minimum_version) >= version_key(
        needed.minimum_version
    )


def _check_portable(variant: Variant, footprint: Footprint) -> None:
    """Refuse operators that a runtime made for the processor on which it optimized the graph."""
    bound = [name for name in footprint.operators if name.rpartition(".")[0] not in PORTABLE_DOMAINS]
    if bound:
        raise InvalidManifest(
            f"Variant {variant.name} has operators that not every device of its runtime has:"
            f" {', '.join(bound):.200}.",
            remedy="Pack the model as it was before optimizing, or optimized at level EXTENDED.",
        )


def _check_file_name(variant: Variant, model: bytes) -> None:
    """Check the end of a name by which onnxruntime tells its own format from ONNX."""
    name = variant.model_file.name
    if (PurePosixPath(name).suffix == _ORT_SUFFIX) != is_ort_format(model):
        raise InvalidManifest(
            f"The model {name} of variant {variant.name} is in another format than its name says.",
            remedy=f"Files in the ORT format end in {_ORT_SUFFIX}, no others do.",
        )
