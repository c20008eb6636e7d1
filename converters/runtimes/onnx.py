"""onnxruntime, on the processor, as devices run it: models as ONNX protobuf and in the ORT format.

Which release a model needs follows from its bytes alone: from the opsets and IR version of an ONNX file (see
`converters.graphs.versions`), from the format's version of an ORT file (see `converters.graphs.ort_format`).
The device package requires `MINIMUM_RUNTIME_VERSION` anyway.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs
from converters.graphs.memory import onnx_peak_memory_bytes, ort_peak_memory_bytes
from converters.graphs.onnx_graph import all_nodes, parsed
from converters.graphs.ort_format import is_ort_format, minimum_release, ort_operators
from converters.graphs.session import onnxruntime_cannot, open_session, session_options
from converters.graphs.versions import MINIMUM_RUNTIME_VERSION, RUNTIME, minimum_onnxruntime
from converters.runtimes.onnx_rounding import computes_in_float16, with_rounding_noise
from converters.runtimes.rounding import FLOAT16_ROUNDOFF, greatest_change
from converters.runtimes.runtime import Footprint, Runtime
from fleet.protocol.errors import ConversionFailed
from fleet.protocol.manifest import Signature
from fleet.protocol.requirement import RuntimeVersion, version_key

DRAWS = 16
"""Random changes of the constants that are tried."""


class OnnxSession:
    """A model in memory.

    Args:
        model: An ONNX file or one in the ORT format.
        signature: What it takes and gives.
        optimize: Let the runtime fuse operators, as devices do.

    Raises:
        ConversionFailed: onnxruntime cannot load it, or it has not the signature's first output.
    """

    def __init__(self, model: bytes, signature: Signature, *, optimize: bool = True) -> None:
        import onnxruntime as ort

        options = session_options()
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = open_session(model, options)
        except Exception as error:
            raise onnxruntime_cannot("load the model", error) from error
        self._output = signature.outputs[0].name
        has = [output.name for output in self._session.get_outputs()]
        if self._output not in has:
            raise ConversionFailed(f"The model has no output {self._output!r}; it has {', '.join(has)}.")

    def run(self, inputs: Inputs) -> NDArray[Any]:
        """Return the first output for one batch.

        Args:
            inputs: By name, each of shape (N, …); text as objects.

        Raises:
            ConversionFailed: onnxruntime refuses or fails.
        """
        try:
            return np.asarray(self._session.run([self._output], inputs)[0])
        except Exception as error:
            raise onnxruntime_cannot("run the model", error) from error


def rounding(model: bytes, signature: Signature, inputs: Inputs, seed: int) -> float:
    """Return how far answers may differ on other processors and releases.

    Args:
        model: An ONNX file or one in the ORT format.
        signature: What it takes and gives.
        inputs: The golden inputs.
        seed: Of the random changes, 0 to 2^32 - 1.

    Raises:
        ConversionFailed: The model cannot be run, or answers with values that are not finite.
    """
    outputs = _answer(model, signature, inputs)
    answers = [_answer(model, signature, inputs, optimize=False)]
    random = np.random.RandomState(seed)
    answers += [_answer(with_rounding_noise(model, random), signature, inputs) for _ in range(DRAWS)]
    spread = greatest_change(outputs, answers)
    if computes_in_float16(model):
        spread += FLOAT16_ROUNDOFF  # of the answer itself
    return spread


def footprint(model: bytes, signature: Signature) -> Footprint:  # noqa: ARG001 - runtimes with fixed batches need it
    """Describe what a model asks of a device.

    Raises:
        ConversionFailed: It cannot be read.
    """
    if is_ort_format(model):
        release, operators, peak = minimum_release(model), ort_operators(model), ort_peak_memory_bytes(model)
    else:
        read = parsed(model)
        release, peak = minimum_onnxruntime(read), onnx_peak_memory_bytes(model)
        operators = frozenset(
            ("" if node.domain == "ai.onnx" else node.domain, node.op_type) for node in all_nodes(read.graph)
        )
    version = max(release, MINIMUM_RUNTIME_VERSION, key=version_key)
    names = sorted(f"{domain}.{name}" if domain else name for domain, name in operators)
    return Footprint((RuntimeVersion(RUNTIME, version),), tuple(names), peak)


def _answer(
    model: bytes, signature: Signature, inputs: Inputs, *, optimize: bool = True
) -> NDArray[np.float64]:
    answers = OnnxSession(model, signature, optimize=optimize).run(inputs)
    return np.asarray(answers, dtype=np.float64)


ONNXRUNTIME = Runtime(RUNTIME, OnnxSession, rounding, footprint)
