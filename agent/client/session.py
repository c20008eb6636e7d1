"""What belongs to one connection of a client: handles of models, numbers of regions, heads used before.

An application asks in the same form again and again, so heads are made and read once for each form.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from agent.client.inputs import TEXT, Array
from agent.client.link import COPIED_BYTES, FastLink, Part
from agent.serving.fast_frames import (
    ALIGNMENT_BYTES,
    CODES,
    HEADER,
    Described,
    Kind,
    Place,
    follow,
    pack_head,
    padded,
    unpack_head,
)
from fleet.protocol.errors import InvalidInput
from fleet.protocol.text import decode_text, encode_text

MAX_HEADS = 64


class Answer(NamedTuple):
    """What a model answered.

    Attributes:
        outputs: By name; those that were to go into shared arrays are these arrays.
        version: The version that answered.
        prediction_id: To label it by; None if it cannot be labelled.
    """

    outputs: dict[str, Array]
    version: int
    prediction_id: int | None


class Shared(NamedTuple):
    """An array in memory that the agent sees too.

    Attributes:
        array: The array.
        descriptor: Of the file in memory.
    """

    array: Array
    descriptor: int


class Session:
    """One connection.

    Args:
        link: The connection.
        shared: The client's shared arrays, by their ids.
    """

    def __init__(self, link: FastLink, shared: Mapping[int, Shared]) -> None:
        self.link = link
        self.regions: dict[int, int] = {}
        """Numbers of the shared arrays that were passed, by their ids."""
        self._shared = shared
        self._opened: dict[str, tuple[int, tuple[Described, ...]]] = {}
        self._requests: dict[tuple[Any, ...], bytes] = {}
        self._answers: dict[bytes, tuple[Described, ...]] = {}

    def open(self, model: str) -> tuple[int, tuple[Described, ...]]:
        """Return a model's handle, and its signature as it was when it was opened."""
        opened = self._opened.get(model)
        if opened is None:
            name = model.encode()
            header, frame = self.link.exchange(Kind.OPEN, parts=[name], data_bytes=len(name))
            signature = unpack_head(bytes(frame[HEADER.size : HEADER.size + header.head_bytes]))
            opened = self._opened[model] = (header.handle, signature)
        return opened

    def infer(
        self, model: str, inputs: Mapping[str, Array], version: int, outputs: Mapping[str, Array | None]
    ) -> Answer:
        """Ask for predictions; see `agent.client.Model`."""
        handle = self.open(model)[0]
        head, parts, data_bytes = self._request(inputs, outputs)
        header, frame = self.link.exchange(
            Kind.INFER, head, parts, data_bytes=data_bytes, handle=handle, version=version
        )
        start = HEADER.size + header.head_bytes
        answered = {
            each.name: _read(each, frame, start, outputs)
            for each in self._described(bytes(memoryview(frame)[HEADER.size : start]))
        }
        return Answer(answered, header.version, header.prediction_id or None)

    def _request(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array | None]
    ) -> tuple[bytes, list[Part], int]:
        """Return a request's head, the parts of its data, and their size."""
        form: list[tuple[Any, ...]] = []
        parts: list[Part] = []
        end = 0
        for name, array in inputs.items():
            region = self._region(array) if self._shared else 0
            if region:
                form.append((name, array.dtype, array.shape, region, array.nbytes))
                continue
            part = as_part(array)
            if end % ALIGNMENT_BYTES:
                parts.append(bytes(padded(end) - end))
            parts.append(part)
            end = padded(end) + len(part)
            form.append((name, array.dtype, array.shape, 0, len(part)))
        for name, place in outputs.items():
            form.append((name, None, (), *self._room(name, place)))
        key = tuple(form)
        head = self._requests.get(key)
        if head is None:
            head = _keep(self._requests, key, _describe(form))
        return head, parts, end

    def _described(self, head: bytes) -> tuple[Described, ...]:
        described = self._answers.get(head)
        if described is None:
            described = _keep(self._answers, head, unpack_head(head))
        return described

    def _region(self, array: Array) -> int:
        """Return the number of a shared array, after passing it if need be; 0 if it is not shared."""
        number = self.regions.get(id(array), 0)
        if not number and id(array) in self._shared:
            number = self.regions[id(array)] = self.link.share(self._shared[id(array)].descriptor)
        return number

    def _room(self, name: str, place: Array | None) -> tuple[int, int]:
        """Return the region and the size of the place where an output is to go."""
        if place is None:
            return 0, 0
        number = self._region(place)
        if not number:
            raise InvalidInput(f"Output {name} can only go into an array of shared_array.")
        return number, place.nbytes


def as_part(array: Array) -> Part:
    """Return an array's bytes as they are sent."""
    if array.dtype.kind in "OU":
        return encode_text(array)
    if sys.byteorder == "big" or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.nbytes <= COPIED_BYTES:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _describe(form: list[tuple[Any, ...]]) -> bytes:
    """Return the head of a request: of each tensor name, type (None for outputs), shape, region, size."""
    in_data = [size for _, dtype, _, region, size in form if dtype is not None and not region]
    offsets = iter(follow(in_data)[0])
    described = []
    for name, dtype, shape, region, size_bytes in form:
        if dtype is None:
            place = Place.ASKED_IN_REGION if region else Place.ASKED_IN_DATA
            described.append(Described(name, "", (), place, region, 0, size_bytes))
            continue
        place = Place.REGION if region else Place.DATA
        offset = 0 if region else next(offsets)
        kind = dtype.name if dtype.name in CODES else TEXT if dtype.kind in "OU" else ""
        described.append(Described(name, kind, shape, place, region, offset, size_bytes))
    return pack_head(described)


def _read(
    described: Described, frame: bytearray, data_start: int, outputs: Mapping[str, Array | None]
) -> Array:
    """Return an output, from the answer or from where it was put."""
    if described.place is Place.REGION:
        place = outputs[described.name]
        assert place is not None
        if place.shape == described.shape and place.dtype.name == described.element_type:
            return place
        return np.ndarray(described.shape, described.element_type, place.reshape(-1).view(np.uint8))
    start = data_start + described.offset
    if described.element_type == TEXT:
        return decode_text(bytes(frame[start : start + described.size_bytes]), described.shape)
    dtype = np.dtype(described.element_type).newbyteorder("<")
    return np.ndarray(described.shape, dtype, frame, start)


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> Any:
    """Keep a value for the next time; forget all of them when forms change again and again."""
    if len(kept) >= MAX_HEADS:
        kept.clear()
    kept[key] = value
    return value
