"""ONNX Runtime, with one thread on the processor: on small models more threads cost more than they bring.

What computes is an execution provider (`agent.runtimes.providers`). ONNX Runtime would replace one that fails
by the processor and go on without an error, at opening as well as while answering. That is turned off, and
what was opened is looked at: else other numbers than the tested ones could be answered, or far slower ones.

A file ``….ort`` is a graph that ONNX Runtime has optimized and written in its own format. It is mapped into
memory and its weights are used where they lie, so that opening it copies nothing but what the processor's
kernels want in an order of their own; the runtime can be told to leave that out too
(``session.disable_prepacking``), which makes each answer a half slower (measured, 34 MB of dense layers).
Any other file is ONNX.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from agent import durable
from agent.runtimes.conversion import check_names, first_line
from agent.runtimes.options import RuntimeOptions
from agent.runtimes.protocol import Tensors
from agent.runtimes.providers import CACHE_FOLDER, CPU, PROVIDERS, candidates, session_providers, uses_cache
from fleet.protocol.errors import InferenceFailed, VariantUnsupported
from fleet.protocol.manifest import Signature

_ERRORS_ONLY = 3
_SILENT = 4
_ORT_SUFFIX = ".ort"
_MAPPED = ("session.use_memory_mapped_ort_model", "session.use_ort_model_bytes_for_initializers")
_UNPACKED = "session.disable_prepacking"

onnxruntime.set_default_logger_severity(_SILENT)  # what fails is said by us, as an error


class OnnxModel:
    """A session of ONNX Runtime.

    Args:
        session: The session.
        outputs: What to compute, as the signature names it.
        accelerator: Name of the execution provider.
    """

    platform = "onnxruntime_onnx"

    def __init__(
        self, session: onnxruntime.InferenceSession, outputs: list[str], accelerator: str = CPU
    ) -> None:
        self.accelerator = accelerator
        self._session = session
        self._outputs = outputs

    def infer(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Return the outputs for the inputs.

        Raises:
            InferenceFailed: The runtime refused the inputs or failed while computing.
        """
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:  # the runtime's exceptions share no narrower base
            raise InferenceFailed(f"ONNX Runtime failed: {first_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))


class OnnxRuntime:
    """Loads ``.onnx`` and ``.ort`` files.

    Args:
        options: How it computes.
    """

    def __init__(self, options: RuntimeOptions = RuntimeOptions()) -> None:  # noqa: B008 - it cannot change
        self._options = options
        self._available: list[str] = onnxruntime.get_available_providers()

    def accelerators(self) -> tuple[str, ...]:
        """Return the execution providers to try, best first."""
        return candidates(self._available, self._options.execution_providers)

    def load(self, path: Path, signature: Signature, accelerator: str = CPU) -> OnnxModel:
        """Load a model whose bytes were verified.

        Raises:
            VariantUnsupported: The runtime cannot run it so, or it lacks a tensor of the signature.
            StorageError: There is no place for what the execution provider compiles.
        """
        accelerator = accelerator or CPU
        wanted = PROVIDERS[accelerator.partition(":")[0]].runtime_name
        if wanted not in self._available:
            raise VariantUnsupported(f"This build of ONNX Runtime has no {wanted}.")
        try:
            session = onnxruntime.InferenceSession(
                path,
                sess_options=self._session_options(path),
                providers=self._providers(path, accelerator),
                enable_fallback=0,
            )
        except Exception as error:  # the runtime's exceptions share no narrower base
            raise VariantUnsupported(f"ONNX Runtime cannot load the model: {first_line(error)}") from error
        if session.get_providers()[0] != wanted:
            raise VariantUnsupported(f"{wanted} cannot be used: its device or a library of it is missing.")
        inputs, outputs = session.get_inputs(), session.get_outputs()
        check_names(signature, (each.name for each in inputs), (each.name for each in outputs))
        return OnnxModel(session, [tensor.name for tensor in signature.computed], accelerator)

    def _session_options(self, path: Path) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        if path.suffix == _ORT_SUFFIX:
            for key in _MAPPED if self._options.prepacks else (*_MAPPED, _UNPACKED):
                options.add_session_config_entry(key, "1")
        return options

    def _providers(self, path: Path, accelerator: str) -> list[tuple[str, dict[str, str]]]:
        cache = path.parent / CACHE_FOLDER / f"onnxruntime-{onnxruntime.__version__}"
        if uses_cache(accelerator):
            durable.make_own_folder(cache)
        return session_providers(
            accelerator, self._available, cache=cache, device_memory_bytes=self._options.device_memory_bytes
        )
