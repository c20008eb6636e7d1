"""Which execution providers of ONNX Runtime a device tries, best first, and with which options.

============  ======================  ===============================================================
name          runs on                 options given
============  ======================  ===============================================================
``tensorrt``  NVIDIA GPU              engines are kept beside the model; bounded workspace
``cuda``      NVIDIA GPU              bounded arena that grows by what is asked for
``openvino``  Intel CPU, GPU, NPU     one thread; compiled models are kept beside the model
``coreml``    Apple                   none
``qnn``       Qualcomm NPU            none
``xnnpack``   ARM and x86 CPU         one thread
``cpu``       any                     none; always the last, for it runs everything
============  ======================  ===============================================================

A name can say which device: ``openvino:GPU``, ``cuda:1``, ``qnn:htp``. OpenVINO's ``AUTO`` is refused: it
begins on the processor and moves to another device later, so what was tested would not be what answers.

Option names: the pages of ONNX Runtime's documentation on each execution provider. The page on TensorRT says
that engines do not fit another model, device, or release of TensorRT or ONNX Runtime: so they lie in the
installed version's own folder, by release.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fleet.protocol.errors import InvalidConfiguration

CPU = "cpu"
CACHE_FOLDER = "compiled"
"""Beside a model's files: what an accelerator compiled it to."""


class _Entry(NamedTuple):
    """One execution provider.

    Attributes:
        runtime_name: As ONNX Runtime names it.
        device_option: The option that says which device; empty if there is no choice.
        beside: Providers for the nodes that it does not take, before the processor.
    """

    runtime_name: str
    device_option: str = ""
    beside: tuple[str, ...] = ()


PROVIDERS = {
    "tensorrt": _Entry("TensorrtExecutionProvider", "device_id", ("cuda",)),
    "cuda": _Entry("CUDAExecutionProvider", "device_id"),
    "openvino": _Entry("OpenVINOExecutionProvider", "device_type"),
    "coreml": _Entry("CoreMLExecutionProvider"),
    "qnn": _Entry("QNNExecutionProvider", "backend_type"),
    "xnnpack": _Entry("XnnpackExecutionProvider"),
    CPU: _Entry("CPUExecutionProvider"),
}
"""Every provider that the agent uses, best first, by the name that settings know it by."""


def check_providers(wanted: Iterable[str]) -> None:
    """Check the names of providers that somebody asks for.

    Raises:
        InvalidConfiguration: One is unknown, or names a device where there is none to choose.
    """
    for each in wanted:
        name, colon, device = each.partition(":")
        entry = PROVIDERS.get(name)
        if entry is None:
            raise InvalidConfiguration(
                f"{each!r:.80} is no execution provider.", remedy=f"There are {', '.join(PROVIDERS)}."
            )
        if colon and not (entry.device_option and device.replace(".", "").isalnum()):
            raise InvalidConfiguration(f"{each!r:.80}: {name} cannot be told that device.")
        if device.upper().startswith("AUTO"):
            raise InvalidConfiguration(f"{each!r:.80}: say which device, so that the one tested answers.")


def candidates(available: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the providers to try, best first; the processor is always the last.

    Args:
        available: What ONNX Runtime says it has, by its own names.
        wanted: What was asked for; those that are not here stay, so that their lack is told. Empty: the best
            that are here.
    """
    here = [name for name, entry in PROVIDERS.items() if entry.runtime_name in available]
    chosen = dict.fromkeys(wanted or here)
    before = list(chosen)[: list(chosen).index(CPU)] if CPU in chosen else list(chosen)
    return (*before, CPU)


def session_providers(
    provider: str,
    available: Sequence[str],
    *,
    cache: Path,
    device_memory_bytes: int = 0,
) -> list[tuple[str, dict[str, str]]]:
    """Return what a session is opened with: the provider, those beside it, and the processor.

    Args:
        provider: Its name, one of `candidates`.
        available: What ONNX Runtime says it has.
        cache: A folder of this model and this release of the runtime, for what is compiled.
        device_memory_bytes: Most memory of the accelerator's own that it may take; 0: as it likes.
    """
    name, _, device = provider.partition(":")
    names = dict.fromkeys((name, *PROVIDERS[name].beside, CPU))
    return [
        (PROVIDERS[each].runtime_name, _options(each, device, cache, device_memory_bytes))
        for each in names
        if each == name or PROVIDERS[each].runtime_name in available
    ]


def uses_cache(provider: str) -> bool:
    """Tell whether a provider keeps what it compiled."""
    return provider.partition(":")[0] in {"tensorrt", "openvino"}


def _options(name: str, device: str, cache: Path, device_memory_bytes: int) -> dict[str, str]:
    entry, limit = PROVIDERS[name], str(device_memory_bytes)
    options = {entry.device_option: device} if device and entry.device_option else {}
    match name:
        case "tensorrt":
            options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(cache)}
            options |= {"trt_max_workspace_size": limit} if device_memory_bytes else {}
        case "cuda":
            options |= {"arena_extend_strategy": "kSameAsRequested"}
            options |= {"gpu_mem_limit": limit} if device_memory_bytes else {}
        case "openvino":
            options |= {"num_of_threads": "1", "cache_dir": str(cache)}
        case "xnnpack":
            options |= {"intra_op_num_threads": "1"}
        case _:
            pass
    return options
