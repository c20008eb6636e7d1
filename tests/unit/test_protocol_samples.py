"""Samples on the wire: what is a model's input passes, and whatever else a device may send is refused."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import msgspec
import numpy as np
import pytest

from fleet.protocol.capture import MAX_SAMPLE_SIZE_BYTES
from fleet.protocol.errors import InvalidMessage, MessageTooLarge, MusterError
from fleet.protocol.manifest import Signature, Tensor
from fleet.protocol.messages import MAX_MESSAGE_SIZE_BYTES, decode, encode
from fleet.protocol.samples import (
    MAX_ANSWER,
    MAX_INPUTS,
    Reason,
    Sample,
    SampleMessage,
    SampleTensor,
    array_of,
    check_sample,
    read_sample,
    tensors_of,
)

DIGEST = "ab" * 32
SIGNATURE = Signature(
    inputs=(Tensor("x", "float32", (-1, 2, -1)), Tensor("city", "str", (-1, 1))),
    outputs=(Tensor("y", "float32", (-1, 3)),),
)
GOOD = Sample(
    at_s=10.0,
    model="doors",
    version=1,
    manifest_sha256=DIGEST,
    reason=Reason.UNCERTAIN,
    inputs=tensors_of(
        {
            "x": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
            "city": np.array([["Malmö"]], dtype=object),
        }
    ),
    category=2,
    confidence=0.4,
    answer=(0.3, 0.3, 0.4),
)


def test_a_sample_survives_the_way_to_the_hub() -> None:
    message = decode(encode(SampleMessage("0" * 16, 7, GOOD)), SampleMessage)
    assert message.sample == GOOD
    check_sample(message.sample, DIGEST, SIGNATURE)
    numbers, text = (array_of(tensor) for tensor in message.sample.inputs)
    assert numbers.tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert text.tolist() == [["Malmö"]]
    assert read_sample(encode(GOOD)) == GOOD


def test_the_largest_sample_fits_into_a_message() -> None:
    tensors = [SampleTensor("n" * 1024, "uint8", (1, 2**40), b"") for _ in range(MAX_INPUTS - 1)]
    data = SampleTensor("n" * 1024, "uint8", (1, MAX_SAMPLE_SIZE_BYTES), bytes(MAX_SAMPLE_SIZE_BYTES))
    large = msgspec.structs.replace(
        GOOD, inputs=(data, *tensors), feature="f" * 1024, answer=(0.1,) * MAX_ANSWER, model="m" * 64
    )
    assert len(encode(SampleMessage("0" * 16, 2**53, large))) < MAX_MESSAGE_SIZE_BYTES


def _with(number: int, **changes: Any) -> Sample:
    inputs = list(GOOD.inputs)
    inputs[number] = msgspec.structs.replace(inputs[number], **changes)
    return msgspec.structs.replace(GOOD, inputs=tuple(inputs))


@pytest.mark.parametrize(
    ("sample", "error"),
    [
        (msgspec.structs.replace(GOOD, manifest_sha256="cd" * 32), InvalidMessage),
        (msgspec.structs.replace(GOOD, inputs=GOOD.inputs[:1]), InvalidMessage),
        (msgspec.structs.replace(GOOD, inputs=GOOD.inputs[::-1]), InvalidMessage),
        (msgspec.structs.replace(GOOD, answer=(float("nan"),)), InvalidMessage),
        (_with(0, shape=(2, 2, 3)), InvalidMessage),
        (_with(0, shape=(1, 3, 2)), InvalidMessage),
        (_with(0, shape=(1, 2, 3, 1)), InvalidMessage),
        (_with(0, shape=(1, 2, 2**50)), InvalidMessage),
        (_with(0, shape=(1, 2, 0)), InvalidMessage),
        (_with(0, dtype="float64"), InvalidMessage),
        (_with(0, dtype="object"), InvalidMessage),
        (_with(0, data=bytes(23)), InvalidMessage),
        (_with(0, shape=(1, 2, 2**20), data=bytes(MAX_SAMPLE_SIZE_BYTES + 1)), MessageTooLarge),
        (_with(1, data=b"\xff\xff\xff\xff"), InvalidMessage),
        (_with(1, data=b"\x01\x00\x00\x00\xff"), InvalidMessage),
        (_with(1, data=b""), InvalidMessage),
    ],
    ids=range(16),
)
def test_what_is_no_input_of_the_model_is_refused(sample: Sample, error: type[MusterError]) -> None:
    with pytest.raises(error):
        check_sample(sample, DIGEST, SIGNATURE)


@pytest.mark.parametrize(("longest", "refused"), [(1024, False), (1025, True)])
def test_one_long_text_among_many_is_refused(longest: int, refused: bool) -> None:
    cities = np.array([["x" * longest] + [""] * 1023], dtype=object)
    signature = Signature(inputs=(Tensor("city", "str", (-1, -1)),), outputs=SIGNATURE.outputs)
    made = msgspec.structs.replace(GOOD, inputs=tensors_of({"city": cities}))
    with pytest.raises(InvalidMessage) if refused else nullcontext():
        check_sample(made, DIGEST, signature)


@pytest.mark.parametrize(
    "changes",
    [{"dtype": "datetime64[s]"}, {"dtype": "V8"}, {"shape": (-1,)}, {"shape": ()}, {"shape": (1,) * 9}],
    ids=["a date", "raw memory", "a negative size", "no shape", "too many sizes"],
)
def test_impossible_tensors_do_not_decode_or_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage):
        array_of(decode(encode(_with(0, **changes).inputs[0]), SampleTensor))
