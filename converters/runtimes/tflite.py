"""TensorFlow Lite models on LiteRT, as devices run them.

Which runtimes run a model follows from its bytes. LiteRT runs all. ``tflite-runtime`` 2.14, its predecessor
on older devices, refuses operators of later versions, and gives wrong answers to models with dynamic-range
quantization (weights in int8, activations quantized on the way): it is not named for those.

How far answers may differ elsewhere is measured as `converters.runtimes.rounding` says, and by the portable
kernels in place of this processor's. Integer kernels round ties differently when they scale a sum back to
eight bits: sums are moved a little (see `tflite_graph`), and a quantized output may be off by one of its
steps.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.data.batches import in_batches, sample_count
from converters.data.samples import Inputs
from converters.runtimes.rounding import greatest_change
from converters.runtimes.runtime import Footprint, Runtime
from converters.runtimes.tflite_graph import TfliteGraph
from converters.runtimes.tflite_versions import TFLITE_RUNTIME_VERSIONS
from converters.tflite.inspect import TfliteModel, inspect_tflite
from converters.tflite.run import TfliteSession
from fleet.protocol.difference import element_scales
from fleet.protocol.errors import ConversionFailed, InvalidModel
from fleet.protocol.manifest import Signature
from fleet.protocol.requirement import RuntimeVersion

LITERT_MINIMUM = RuntimeVersion("litert", "1.0")
TFLITE_RUNTIME_MINIMUM = RuntimeVersion("tflite-runtime", "2.14")
DRAWS = 8
"""Random changes of the constants that are tried."""


class LitertSession:
    """A model in memory.

    Args:
        model: The bytes of a ``.tflite`` file.
        signature: What it takes and gives.
        plain_kernels: Use the portable kernels in place of those for this processor.

    Raises:
        ConversionFailed: LiteRT cannot load it, or it has not the signature's first output.
    """

    def __init__(self, model: bytes, signature: Signature, *, plain_kernels: bool = False) -> None:
        _inspected(model)  # LiteRT itself does not verify files
        self._session = TfliteSession(model, keep_intermediate=plain_kernels)
        self._output = signature.outputs[0].name
        self._batch = max(signature.inputs[0].shape[0], 0)

    def run(self, inputs: Inputs) -> NDArray[Any]:
        """Return the first output for one batch.

        Args:
            inputs: By name, each of shape (N, …).

        Raises:
            ConversionFailed: LiteRT refuses or fails.
        """
        count = sample_count(inputs)
        size = self._batch or count
        answers = [self._first_output(batch) for batch in in_batches(inputs, size, fill=True)]
        return np.concatenate(answers)[:count]

    def _first_output(self, batch: Inputs) -> NDArray[Any]:
        outputs = self._session.run(batch)
        if self._output not in outputs:
            raise ConversionFailed(f"The model has no output {self._output!r}; it has {', '.join(outputs)}.")
        return outputs[self._output]


def rounding(model: bytes, signature: Signature, inputs: Inputs, seed: int) -> float:
    """Return how far answers may differ on other processors and releases.

    Args:
        model: The bytes of a ``.tflite`` file.
        signature: What it takes and gives.
        inputs: The golden inputs.
        seed: Of the random changes, 0 to 2^32 - 1.

    Raises:
        ConversionFailed: The model cannot be run, or answers with values that are not finite.
    """
    outputs = LitertSession(model, signature).run(inputs).astype(np.float64)
    answers = [LitertSession(model, signature, plain_kernels=True).run(inputs)]
    graph, random = TfliteGraph(model), np.random.RandomState(seed)
    answers += [LitertSession(graph.with_rounding_noise(random), signature).run(inputs) for _ in range(DRAWS)]
    step = graph.output_step() / float(element_scales(outputs).min())
    return max(greatest_change(outputs, answers), step)


def footprint(model: bytes, signature: Signature) -> Footprint:  # noqa: ARG001 - the bytes say it all
    """Describe what a model asks of a device.

    Raises:
        ConversionFailed: It cannot be read.
    """
    inspected = _inspected(model)
    litert = LITERT_MINIMUM if _known_long(inspected) else RuntimeVersion("litert", version("ai-edge-litert"))
    old = (TFLITE_RUNTIME_MINIMUM,) if _runs_on_tflite_runtime(inspected) else ()
    return Footprint(
        runtimes=(litert, *old),
        operators=tuple(sorted({operator.name for operator in inspected.operators})),
        peak_memory_bytes=TfliteGraph(model).peak_memory_bytes(),
    )


def _known_long(model: TfliteModel) -> bool:
    """Return whether LiteRT's predecessor knew all operators; later ones surely the release here alone."""
    return not model.external_buffers and all(
        not operator.custom and operator.version <= TFLITE_RUNTIME_VERSIONS.get(operator.name, 0)
        for operator in model.operators
    )


def _runs_on_tflite_runtime(model: TfliteModel) -> bool:
    return _known_long(model) and model.quantization != "dynamic-int8"


def _inspected(model: bytes) -> TfliteModel:
    try:
        return inspect_tflite(model)
    except InvalidModel as error:
        raise ConversionFailed(str(error)) from error


LITERT = Runtime("litert", LitertSession, rounding, footprint)
