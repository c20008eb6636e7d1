"""What a model answers, and whether what its runtime gave is an answer at all."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.finite import is_finite
from agent.runtimes.protocol import Tensors
from agent.runtimes.self_test import TEXT
from agent.telemetry.window import Counter
from agent.turns import Ran
from fleet.protocol.errors import InferenceFailed, InferenceNotFinite
from fleet.protocol.manifest import Manifest


class Answer(NamedTuple):
    """What a model answered.

    Attributes:
        outputs: By name, as the signature has them.
        version: The version that answered.
        classes: Number of the most probable class for each sample; None if the model is no classifier.
        scores: Number of each class for each sample, shape (N, C); None if the model is no classifier.
        counter: Where a label for these samples is counted.
        queue_ns: How long the request waited for the version's thread.
        compute_ns: How long the runtime took.
        joined: How many samples the run had if other requests were answered by it too, else 0.
        is_guest: Whether another request's thread made the run.
        embedding: What drift is watched on besides, shape (N, K), and nobody is answered with; None if the
            model has none.
    """

    outputs: dict[str, NDArray[Any]]
    version: int
    classes: NDArray[np.int64] | None
    scores: NDArray[Any] | None
    counter: Counter
    queue_ns: int
    compute_ns: int
    joined: int
    is_guest: bool
    embedding: NDArray[Any] | None = None


class AnswerReader:
    """Makes answers of what the runtime of one version gives, as the version's signature has them.

    Args:
        manifest: Of the version.
        counter: Where labels for its answers are counted.
    """

    def __init__(self, manifest: Manifest, counter: Counter) -> None:
        signature = manifest.signature
        self.output_name = signature.outputs[0].name
        """The output that answers; others go along with it."""
        self._version = manifest.version
        self._counter = counter
        self._task = signature.task
        self._input_name = signature.inputs[0].name
        self._embedding = None if signature.embedding is msgspec.UNSET else signature.embedding
        self._numbers = next((tensor.name for tensor in signature.inputs if tensor.dtype != TEXT), None)

    def read(self, inputs: Tensors, ran: Ran, asked_ns: int) -> Answer:
        """Return what a run gave, if it is an answer.

        Args:
            inputs: What was asked.
            ran: What came of it.
            asked_ns: When it was asked, by `time.perf_counter_ns`.

        Raises:
            InferenceFailed: Values are not finite, or not of the shape that the task asks for.
        """
        outputs, started_ns, compute_ns, joined, is_guest = ran
        samples = len(inputs[self._input_name])
        embedding = self.set_aside(outputs, samples)
        for value in outputs.values():
            if not is_finite(value):
                raise InferenceNotFinite("The model answered with values that are not finite.")
        values = outputs[self.output_name]
        shape = values.shape
        if self._task == "reconstruction":
            fits = values.size == self.profiled(inputs, samples).size
        else:
            fits = values.size > 0
        if shape[:1] != (samples,) or not fits:
            raise InferenceFailed(f"The model answered {samples} sample(s) with the shape {shape}.")
        classes = scores = None
        if self._task == "classification":
            scores = values if len(shape) == 2 else values.reshape(samples, -1)
            classes = scores.argmax(axis=1)
        return Answer(
            outputs,
            self._version,
            classes,
            scores,
            self._counter,
            started_ns - asked_ns,
            compute_ns,
            joined,
            is_guest,
            embedding,
        )

    def set_aside(self, outputs: dict[str, NDArray[Any]], samples: int) -> NDArray[Any] | None:
        """Take the embedding out of what was computed: it is counted, and nobody is answered with it.

        An answer is no worse for its embedding: one that is not as the manifest says counts as missing.
        """
        if self._embedding is None:
            return None
        found, shape = outputs.pop(self._embedding.name), (samples, *self._embedding.shape[1:])
        return found if found.shape == shape else np.full(shape, np.nan, np.float32)

    def profiled(self, inputs: Tensors, samples: int) -> NDArray[Any]:
        """Return the first input of numbers; for a model of text alone, no numbers, shape (N, 0)."""
        return np.empty((samples, 0), dtype=np.float32) if self._numbers is None else inputs[self._numbers]
