"""ONNX Runtime on the CPU, with one thread: on small models more threads cost more than they bring.

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

from agent.runtimes.conversion import check_names, first_line
from agent.runtimes.protocol import Tensors
from fleet.protocol.errors import InferenceFailed, VariantUnsupported
from fleet.protocol.manifest import Signature

_ERRORS_ONLY = 3
_ORT_SUFFIX = ".ort"
_MAPPED = ("session.use_memory_mapped_ort_model", "session.use_ort_model_bytes_for_initializers")


class OnnxModel:
    """A session of ONNX Runtime.

    Args:
        session: The session.
        outputs: The outputs to compute, as the signature names them.
    """

    platform = "onnxruntime_onnx"

    def __init__(self, session: onnxruntime.InferenceSession, outputs: list[str]) -> None:
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
    """Loads ``.onnx`` and ``.ort`` files."""

    def load(self, path: Path, signature: Signature) -> OnnxModel:
        """Load a model whose bytes were verified.

        Raises:
            VariantUnsupported: The runtime cannot run it, or it lacks a tensor of the signature.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        if path.suffix == _ORT_SUFFIX:
            for key in _MAPPED:
                options.add_session_config_entry(key, "1")
        try:
            session = onnxruntime.InferenceSession(
                path, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's exceptions share no narrower base
            raise VariantUnsupported(f"ONNX Runtime cannot load the model: {first_line(error)}") from error
        inputs, outputs = session.get_inputs(), session.get_outputs()
        check_names(signature, (each.name for each in inputs), (each.name for each in outputs))
        return OnnxModel(session, [tensor.name for tensor in signature.outputs])
