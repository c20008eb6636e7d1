"""What a variant asks of a device, and whether a device has it.

The hub refuses what cannot run before it is sent, and the device refuses it again before it is loaded. Both
use the one function here. Nothing is assumed of a runtime that a requirement does not name: a variant that is
known to give wrong answers on a runtime is kept from it by not naming it.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from fleet.protocol.errors import VariantUnsupported
from fleet.protocol.messages import Capabilities
from fleet.protocol.names import Name

Version = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,9}(\.[0-9]{1,9}){0,7}\Z")]
"""Numbers only: a minimum that is no version would be met by every device."""


class RuntimeVersion(msgspec.Struct, frozen=True):
    """One runtime that runs a variant.

    Attributes:
        name: As devices report it: ``onnxruntime``, ``litert`` or ``tflite-runtime``.
        minimum_version: Lowest version of it that runs the variant.
    """

    name: Name
    minimum_version: Version

    def __str__(self) -> str:
        return f"{self.name}>={self.minimum_version}"


class RuntimeRequirement(msgspec.Struct, frozen=True):
    """What a device must have to run a variant.

    Attributes:
        runtimes: The runtimes that run it, the preferred one first; one of them is enough.
        size_bytes: Size of the model's file.
        peak_memory_bytes: Estimate of the memory that weights and tensors take while one sample is answered;
            the runtime's own code comes on top.
        operators: The operators used, sorted, those outside the core with their domain.
        architectures: Processor architectures that run it, as ``platform.machine()`` names them; empty: all.
    """

    runtimes: Annotated[tuple[RuntimeVersion, ...], msgspec.Meta(min_length=1)]
    size_bytes: Annotated[int, msgspec.Meta(ge=0)]
    peak_memory_bytes: Annotated[int, msgspec.Meta(ge=0)]
    operators: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()


def suitable_runtime(requirement: RuntimeRequirement, device: Capabilities) -> str:
    """Return the runtime of a device that runs a variant.

    Args:
        requirement: The variant's.
        device: What the device can run.

    Raises:
        VariantUnsupported: The device lacks something; the message says what.
    """
    if requirement.architectures and device.architecture not in requirement.architectures:
        raise VariantUnsupported(
            f"It needs {' or '.join(requirement.architectures)}; the device is {device.architecture}."
        )
    if requirement.peak_memory_bytes > device.memory_bytes:
        raise VariantUnsupported(
            f"It needs {requirement.peak_memory_bytes} bytes of memory; the device has {device.memory_bytes}."
        )
    for runtime in requirement.runtimes:
        version = device.runtimes.get(runtime.name)
        if version and version_key(version) >= version_key(runtime.minimum_version):
            return runtime.name
    needs = " or ".join(map(str, requirement.runtimes))
    has = ", ".join(f"{name} {version}" for name, version in sorted(device.runtimes.items())) or "none"
    raise VariantUnsupported(f"It needs {needs}; the device has {has}.")


def fits(requirement: RuntimeRequirement, device: Capabilities) -> bool:
    """Tell whether a device can run a variant."""
    try:
        suitable_runtime(requirement, device)
    except VariantUnsupported:
        return False
    return True


def version_key(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version text, for comparing: "1.20.1rc1" gives (1, 20, 1)."""
    leading = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in leading.group().split(".")) if leading else ()
