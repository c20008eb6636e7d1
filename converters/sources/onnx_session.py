"""Run an ONNX model as it comes, all its outputs at once, before anything is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs
from converters.graphs.session import FATAL, open_session
from fleet.protocol.errors import InvalidModel

if TYPE_CHECKING:
    import onnx


class OnnxSession:
    """A model in onnxruntime, on one thread: other splits would be other orders of addition.

    Args:
        model: Checked by ``onnx.checker``.
        name: What to call it in messages.

    Raises:
        InvalidModel: onnxruntime cannot load it.
    """

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        import onnxruntime as ort

        self._name = name
        try:
            self._session = open_session(model.SerializeToString(deterministic=True))
        except Exception as error:  # onnxruntime's errors have no root of their own
            raise InvalidModel(
                f"onnxruntime {ort.__version__} cannot load {name}: {_told(error)}",
                remedy="Update onnxruntime, or export the model with operators and an opset that it has.",
            ) from error

    def run(self, inputs: Inputs, outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Return these outputs for one batch.

        Raises:
            InvalidModel: The model fails.
        """
        import onnxruntime as ort

        options = ort.RunOptions()
        options.log_severity_level = FATAL
        try:
            answers = self._session.run(list(outputs), inputs, options)
        except Exception as error:  # onnxruntime's errors have no root of their own
            sizes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            raise InvalidModel(f"{self._name} fails on a batch of {sizes}: {_told(error)}") from error
        return [np.asarray(answer) for answer in answers]


def _told(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0][:500]
