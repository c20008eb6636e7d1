"""ONNX Runtime on the CPU, with one thread: on small models more threads cost more than they bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from agent.runtimes.protocol import Tensors
from fleet.protocol.errors import InferenceFailed, VariantUnsupported
from fleet.protocol.manifest import Signature

_ERRORS_ONLY = 3


class OnnxModel:
    """A session of ONNX Runtime.

    Args:
        session: The session.
        outputs: The outputs to compute, as the signature names them.
    """

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
            raise InferenceFailed(f"ONNX Runtime failed: {_first_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))


class OnnxRuntime:
    """Loads ``.onnx`` files."""

    def load(self, path: Path, signature: Signature) -> OnnxModel:
        """Load a model whose bytes were verified.

        Raises:
            VariantUnsupported: The runtime cannot run it, or it lacks a tensor of the signature.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        try:
            session = onnxruntime.InferenceSession(
                path, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's exceptions share no narrower base
            raise VariantUnsupported(f"ONNX Runtime cannot load the model: {_first_line(error)}") from error
        outputs = [tensor.name for tensor in signature.outputs]
        missing = {tensor.name for tensor in signature.inputs} ^ {each.name for each in session.get_inputs()}
        missing |= set(outputs) - {each.name for each in session.get_outputs()}
        if missing:
            raise VariantUnsupported(
                f"The model and its manifest do not name the same tensors: {', '.join(sorted(missing)):.200}."
            )
        return OnnxModel(session, outputs)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
