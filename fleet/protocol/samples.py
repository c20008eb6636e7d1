"""A captured sample: one input of a model and what the model made of it, for people to label.

The inputs stand in it as tensors of raw little-endian numbers, or text as `fleet.protocol.text` lays it out.
Sizes are compared with shapes before an array is made of them, and shapes with the model's signature, so that
what a hostile device sends is as large as its message and no larger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.protocol.capture import MAX_SAMPLE_SIZE_BYTES
from fleet.protocol.errors import InvalidMessage, MessageTooLarge
from fleet.protocol.fields import Count, Stream, Text, UnixTime
from fleet.protocol.manifest import Signature, Tensor
from fleet.protocol.names import Name, Sha256
from fleet.protocol.text import decode_text, encode_text

TEXT = "str"
MAX_INPUTS = 32
MAX_RANK = 8
MAX_TABLE_BYTES = 4 * 1024**2
"""Most bytes of a sample's texts laid out as a dataset has them: each takes as much as the longest."""
MAX_ANSWER = 64
"""Most numbers of an answer that go with a sample; of a longer answer none does."""

_NUMBERS = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)


class Reason(StrEnum):
    """Why an input was captured; where several hold, the first of these."""

    UNCERTAIN = "uncertain"
    DRIFTED = "drifted"
    RANDOM = "random"


class SampleTensor(msgspec.Struct, frozen=True):
    """One input of the sample.

    Attributes:
        name: The tensor's name in the signature.
        dtype: NumPy's name of the element type; ``str`` for text.
        shape: Of the one sample, with the batch of 1 in front.
        data: Its elements in row-major order.
    """

    name: Text
    dtype: Annotated[str, msgspec.Meta(max_length=16)]
    shape: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1, max_length=MAX_RANK)]
    data: Annotated[bytes, msgspec.Meta(max_length=MAX_SAMPLE_SIZE_BYTES)]


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """One captured input.

    Attributes:
        at_s: Device time, Unix seconds.
        model: Name of the model.
        version: The version that answered.
        manifest_sha256: Its bundle.
        reason: Why it was captured.
        inputs: What the model was given, after redaction.
        feature: Of a drifted input, the feature that told.
        redaction: Name of the redaction that it went through; None for none.
        category: Number of the class that the model gave; None if it is no classifier.
        confidence: Probability of that class; likewise, or None where scores are not probabilities.
        answer: The numbers of the model's first output, if they are few.
    """

    at_s: UnixTime
    model: Name
    version: Count
    manifest_sha256: Sha256
    reason: Reason
    inputs: Annotated[tuple[SampleTensor, ...], msgspec.Meta(min_length=1, max_length=MAX_INPUTS)]
    feature: Text = ""
    redaction: Name | None = None
    category: Count | None = None
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    answer: Annotated[tuple[float, ...], msgspec.Meta(max_length=MAX_ANSWER)] = ()

    @property
    def size_bytes(self) -> int:
        """Size of the inputs."""
        return sum(len(tensor.data) for tensor in self.inputs)


class SampleMessage(msgspec.Struct, frozen=True):
    """A sample on its way: sent until the hub acknowledges stream and number, as records are.

    Attributes:
        stream: Drawn when the device's spool of samples was created.
        number: Rises within the stream.
        sample: The contents.
    """

    stream: Stream
    number: Count
    sample: Sample


# Made at import: msgspec crashes if two threads learn a type at the same time.
_DECODER = msgspec.msgpack.Decoder(Sample)
msgspec.msgpack.Decoder(SampleMessage)


def read_sample(data: bytes) -> Sample:
    """Return the sample in bytes that were stored.

    Raises:
        InvalidMessage: They are no sample.
    """
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"A sample cannot be understood: {error}.") from error


def tensors_of(inputs: Mapping[str, NDArray[Any]]) -> tuple[SampleTensor, ...]:
    """Return arrays as the tensors of a sample.

    Args:
        inputs: By name, each of one sample, shape (1, …): numbers, or text as objects.
    """
    return tuple(
        SampleTensor(
            name=name,
            dtype=TEXT if values.dtype == object else values.dtype.name,
            shape=values.shape,
            data=encode_text(values)
            if values.dtype == object
            else np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes(),
        )
        for name, values in inputs.items()
    )


def array_of(tensor: SampleTensor) -> NDArray[Any]:
    """Return a tensor that was checked, as an array; of text, as objects.

    Raises:
        InvalidMessage: Its bytes are not as its shape and type say.
    """
    check_size(tensor)
    if tensor.dtype == TEXT:
        return decode_text(tensor.data, tensor.shape)
    return np.frombuffer(tensor.data, np.dtype(tensor.dtype).newbyteorder("<")).reshape(tensor.shape)


def table_bytes(tensor: SampleTensor) -> int:
    """Return how many bytes a tensor of text that was checked takes in a dataset, see `MAX_TABLE_BYTES`."""
    texts = decode_text(tensor.data, tensor.shape).ravel()
    return 4 * len(texts) * max(map(len, texts), default=0)


def check_size(tensor: SampleTensor) -> None:
    """Check that a tensor has as many bytes as its shape and type say.

    Raises:
        InvalidMessage: It has not, or its type is unknown.
    """
    elements = math.prod(tensor.shape)
    if tensor.dtype == TEXT:
        fits = elements <= len(tensor.data)  # each takes four bytes for its length alone
    elif tensor.dtype in _NUMBERS:
        fits = elements * np.dtype(tensor.dtype).itemsize == len(tensor.data)
    else:
        raise InvalidMessage(
            f"Input {tensor.name!r:.80} of a sample is of the unknown type {tensor.dtype!r}."
        )
    if not fits:
        raise InvalidMessage(
            f"Input {tensor.name!r:.80} of a sample has {len(tensor.data)} bytes for shape {tensor.shape}."
        )


def check_sample(sample: Sample, manifest_sha256: str, signature: Signature) -> None:
    """Check that a sample is one input of this bundle's model.

    Args:
        sample: What a device sent.
        manifest_sha256: Digest of the bundle of the version that it names.
        signature: What that version takes.

    Raises:
        InvalidMessage: It is not.
        MessageTooLarge: It is larger than a sample may be.
    """
    if sample.manifest_sha256 != manifest_sha256:
        raise InvalidMessage(f"The sample is of another bundle than {sample.model} version {sample.version}.")
    if sample.size_bytes > MAX_SAMPLE_SIZE_BYTES:
        raise MessageTooLarge(f"A sample has {sample.size_bytes} bytes; {MAX_SAMPLE_SIZE_BYTES} are allowed.")
    if [tensor.name for tensor in sample.inputs] != [tensor.name for tensor in signature.inputs]:
        raise InvalidMessage(f"The sample has other inputs than {sample.model} version {sample.version}.")
    for given, wanted in zip(sample.inputs, signature.inputs, strict=True):
        if given.dtype != wanted.dtype or not _has_shape(given.shape, wanted):
            raise InvalidMessage(
                f"Input {given.name!r:.80} of a sample is {given.dtype} of shape {given.shape}; the model"
                f" takes {wanted.dtype} of {wanted.shape}."
            )
        array_of(given)
        if given.dtype == TEXT and table_bytes(given) > MAX_TABLE_BYTES:
            raise InvalidMessage(f"Input {given.name!r:.80} of a sample has one long text among many.")
    if not all(map(math.isfinite, sample.answer)):
        raise InvalidMessage("The answer of a sample is not finite.")


def _has_shape(shape: tuple[int, ...], wanted: Tensor) -> bool:
    sizes = zip(shape[1:], wanted.shape[1:], strict=False)
    return len(shape) == len(wanted.shape) and shape[0] == 1 and all(b in (a, -1) for a, b in sizes)
