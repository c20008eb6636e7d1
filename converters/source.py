"""A source: a trained model as a conversion takes it in, whatever it was trained with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from converters.data.samples import Inputs
from fleet.protocol.manifest import Signature

Precision = Literal["fp32", "fp16", "int8", "int4"]


@dataclass(frozen=True, eq=False)
class Source:
    """A trained model.

    Attributes:
        name: The file or class that it came from, for messages and provenance.
        framework: What it was trained with or stored as: ``scikit-learn``, ``PyTorch``, ``ONNX``,
            ``TensorFlow Lite``.
        signature: What it takes and gives. Only its first output is judged.
        answer: What the original itself answers to a batch: its first output, shape (N, …), float32. This is
            what every variant is compared with.
        onnx: The model as a serialized ONNX graph with a symbolic batch dimension; None where there is none.
        tflite: The model as it is in a ``.tflite`` file; None where it is not.
        precision: Of the model as it is. Only fp32 can be quantized.
        sha256: Digest of the file that it came from; empty for objects in memory.
        cautions: What a person should know before trusting the conversion, in whole sentences.
        libraries: Distributions that took part in reading it; their versions go into the provenance.
    """

    name: str
    framework: str
    signature: Signature
    answer: Callable[[Inputs], NDArray[Any]]
    onnx: bytes | None = None
    tflite: bytes | None = None
    precision: Precision = "fp32"
    sha256: str = ""
    cautions: tuple[str, ...] = ()
    libraries: tuple[str, ...] = field(default=())
