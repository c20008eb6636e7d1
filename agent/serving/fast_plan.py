"""How to read the tensors of a request on the fast path, and where to put those of its answer.

An application asks in the same form again and again, so what its head says is checked once: `plan_request`
makes a `Plan` of it, which is kept for the next request with the same head. What is left to do for each is
to look at the values. Inputs are views of the memory they came in; nobody may keep them.
"""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.finite import is_finite
from agent.serving.checks import check_batches, check_names, check_shape, check_values
from agent.serving.fast_frames import (
    ALIGNMENT_BYTES,
    CODES,
    Described,
    Place,
    follow,
    pack_head,
    padded,
    unpack_head,
)
from agent.serving.fast_regions import Regions
from fleet.protocol.errors import InvalidMessage, MessageTooLarge
from fleet.protocol.manifest import Signature, Tensor
from fleet.protocol.text import decode_text, encode_text

TEXT = "str"
MAX_ANSWER_HEADS = 64
COPIED_BYTES = 16 * 1024  # up to here a copy costs less than what it would spare

Buffer = bytearray | mmap.mmap
Part = bytes | memoryview


class Source(NamedTuple):
    """Where an input is.

    Attributes:
        wanted: What the model takes there.
        dtype: Of its elements; None for text.
        shape: Of the array.
        offset: From the beginning of the data, or of the region.
        size_bytes: How long it is.
        region: The region; None if it is in the data.
        is_plain: Whether the model takes the bytes as they are.
    """

    wanted: Tensor
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    offset: int
    size_bytes: int
    region: mmap.mmap | None
    is_plain: bool

    def bind(self, buffer: bytearray, data_start: int) -> NDArray[Any]:
        """Return an array that is the input, as it lies there; of text and flags, its bytes.

        Args:
            buffer: Where requests are received.
            data_start: Where the data of this one begins.
        """
        place: Buffer = buffer if self.region is None else self.region
        start = self.offset if self.region is not None else data_start + self.offset
        if self.dtype is None:
            return np.ndarray((self.size_bytes,), np.uint8, place, start)
        return np.ndarray(self.shape, np.uint8 if self.dtype.kind == "b" else self.dtype, place, start)

    def read(self, bound: NDArray[Any]) -> NDArray[Any]:
        """Return the input as the model takes it, its values checked.

        Args:
            bound: What `bind` returned.

        Raises:
            InvalidMessage: A value may not be.
        """
        if self.is_plain and is_finite(bound):
            return bound
        if self.dtype is None:
            return decode_text(bound.tobytes(), self.shape)
        if self.dtype.kind == "b":
            flags = bound.copy()  # nobody changes the copy
            if flags.max() > 1:
                raise InvalidMessage(f"Input {self.wanted.name} has bytes that are no bool, 0 or 1.")
            return flags.view(np.bool_)
        if not self.is_plain and self.dtype.isnative:
            bound = bound.copy()  # nobody changes the copy, see `_is_plain`
        check_values(bound, self.wanted)
        return bound if self.dtype.isnative else bound.astype(self.dtype.newbyteorder("="))


class Target(NamedTuple):
    """Where an output goes.

    Attributes:
        name: Of the output.
        region: The region; None if it goes into the answer's data.
        number: Of the region.
        offset: In the region.
        room_bytes: What there is room for.
    """

    name: str
    region: mmap.mmap | None = None
    number: int = 0
    offset: int = 0
    room_bytes: int = 0


class Plan:
    """What a request's head asks for, checked against a signature.

    Args:
        sources: The inputs.
        targets: The outputs that are asked for.
        data_bytes: How much data belongs to such a request.
    """

    def __init__(self, sources: Sequence[Source], targets: Sequence[Target], data_bytes: int) -> None:
        self.data_bytes = data_bytes
        self.reads_regions = any(source.region is not None for source in sources)
        """Whether inputs lie where the client may write."""
        self._sources = tuple(sources)
        self._targets = tuple(targets)
        self._bound: tuple[bytearray, list[tuple[str, Source, NDArray[Any]]]] | None = None
        self._only: tuple[bytearray, dict[str, NDArray[Any]], NDArray[Any]] | None = None
        self._last: tuple[str, tuple[int, ...], np.dtype[Any], bytes] | None = None
        self._heads: dict[tuple[Any, ...], bytes] = {}

    def read(self, buffer: bytearray, data_start: int) -> dict[str, NDArray[Any]]:
        """Return the inputs of a request, by name; the dictionary is used again for the next.

        Args:
            buffer: Where it was received; mostly the same as the last time.
            data_start: Where its data begins; always the same, for a plan is of one head.

        Raises:
            InvalidMessage: A value may not be.
        """
        if self._only is not None and self._only[0] is buffer and is_finite(self._only[2]):
            return self._only[1]
        if self._bound is None or self._bound[0] is not buffer:
            bound = [(each.wanted.name, each, each.bind(buffer, data_start)) for each in self._sources]
            self._bound = buffer, bound
        inputs = {}
        for name, source, array in self._bound[1]:
            inputs[name] = source.read(array)
        if len(self._sources) == 1 and self._sources[0].is_plain:
            self._only = buffer, inputs, array
        return inputs

    def write(self, outputs: Mapping[str, NDArray[Any]]) -> tuple[bytes, list[Part], int]:
        """Return an answer's head, the parts of its data and their size; fill the regions.

        Args:
            outputs: What the model gave, by name.

        Raises:
            MessageTooLarge: An output does not fit where it is to go.
        """
        if self._last is not None:  # one output, into the answer's data
            name, shape, dtype, head = self._last
            array = outputs[name]
            if array.shape == shape and array.dtype is dtype:
                data = _as_bytes(array)
                return head, [data], len(data)
        parts: list[Part] = []
        layout: list[Any] = []
        end = 0
        for target in self._targets:
            array = outputs[target.name]
            data = _as_bytes(array)
            if target.region is None:
                if end % ALIGNMENT_BYTES:
                    parts.append(bytes(padded(end) - end))
                parts.append(data)
                end = padded(end) + len(data)
            else:
                _put(target, data)
            layout.append((array.shape, array.dtype, len(data)))
        key = tuple(layout)
        found = self._heads.get(key)
        if found is None:
            if len(self._heads) >= MAX_ANSWER_HEADS:  # of shapes that change all the time
                self._heads.clear()
            found = self._heads[key] = self._describe(outputs, [each[2] for each in layout])
        if len(self._targets) == 1 and target.region is None and array.dtype.name in CODES:
            self._last = target.name, array.shape, array.dtype, found
        return found, parts, end

    def _describe(self, outputs: Mapping[str, NDArray[Any]], sizes_bytes: list[int]) -> bytes:
        in_data = [size for size, target in zip(sizes_bytes, self._targets, strict=True) if not target.region]
        offsets = iter(follow(in_data)[0])
        described = []
        for target, size_bytes in zip(self._targets, sizes_bytes, strict=True):
            array = outputs[target.name]
            name = array.dtype.name if array.dtype.name in CODES else TEXT
            place = Place.DATA if target.region is None else Place.REGION
            offset = next(offsets) if target.region is None else target.offset
            described.append(
                Described(target.name, name, array.shape, place, target.number, offset, size_bytes)
            )
        return pack_head(described)


def plan_request(head: bytes, data_bytes: int, signature: Signature, regions: Regions) -> Plan:
    """Return how to carry out a request.

    Args:
        head: Its head.
        data_bytes: How much data follows.
        signature: What the model takes and gives.
        regions: What the client shares.

    Raises:
        InvalidMessage: It is not a request for this model.
    """
    described = unpack_head(head)
    given = [each for each in described if each.place in (Place.DATA, Place.REGION)]
    asked = [each for each in described if each.place not in (Place.DATA, Place.REGION)]
    check_names([each.name for each in given], signature.inputs, "takes the inputs")
    by_name = {each.name: each for each in given}
    sources = [_source(by_name[wanted.name], wanted, regions) for wanted in signature.inputs]
    check_batches([source.shape[0] for source in sources if source.shape])
    in_data = [each for each in given if each.place is Place.DATA]
    offsets, end = follow([each.size_bytes for each in in_data])
    if offsets != [each.offset for each in in_data]:
        raise InvalidMessage("The tensors in the data do not follow one another at multiples of 8.")
    if end != data_bytes:
        raise InvalidMessage(f"The tensors in the data end at {end}; {data_bytes} bytes came.")
    if not asked:
        return Plan(sources, [Target(output.name) for output in signature.outputs], data_bytes)
    if not {each.name for each in asked} <= {output.name for output in signature.outputs}:
        check_names([each.name for each in asked], signature.outputs, "gives the outputs")
    if len({each.name for each in asked}) != len(asked):
        raise InvalidMessage("An output is asked for twice.")
    return Plan(sources, [_target(each, regions) for each in asked], data_bytes)


def _source(given: Described, wanted: Tensor, regions: Regions) -> Source:
    if given.element_type != wanted.dtype:
        found = given.element_type or "an unknown type"
        raise InvalidMessage(f"Input {wanted.name} has elements of {wanted.dtype}, not of {found}.")
    check_shape(given.shape, wanted)
    dtype = None if wanted.dtype == TEXT else np.dtype(wanted.dtype).newbyteorder("<")
    expected = given.size_bytes if dtype is None else math.prod(given.shape) * dtype.itemsize
    if given.size_bytes != expected:
        raise InvalidMessage(
            f"Input {wanted.name} of shape {list(given.shape)!r:.80} takes {expected} bytes, "
            f"not {given.size_bytes}."
        )
    if given.offset % ALIGNMENT_BYTES:
        raise InvalidMessage(f"Input {wanted.name} does not begin at a multiple of {ALIGNMENT_BYTES}.")
    region = None
    if given.place is Place.REGION:
        region = regions.part(given.region, given.offset, given.size_bytes)
    is_plain = _is_plain(dtype, None if region is None else regions)
    return Source(wanted, dtype, given.shape, given.offset, expected, region, is_plain)


def _is_plain(dtype: np.dtype[Any] | None, regions: Regions | None) -> bool:
    """Tell whether the model may take elements where they are: in the data, or in one of a client's regions.

    A client can change a region while the runtime reads it, and that runtimes do not endure: ONNX Runtime
    checks that indices are in range, then reads them again to fetch what they point at, and sorts by numbers
    that it trusts to stay (TopK). So another account's are copied. One that could end the agent anyway is
    believed that it does not, but for what may be an index: whole numbers of more than one byte.
    """
    if dtype is None or not dtype.isnative or dtype.kind == "b":
        return False
    return regions is None or (regions.are_trusted and (dtype.kind == "f" or dtype.itemsize == 1))


def _target(asked: Described, regions: Regions) -> Target:
    if asked.place is Place.ASKED_IN_DATA:
        return Target(asked.name)
    region = regions.part(asked.region, asked.offset, asked.size_bytes)
    return Target(asked.name, region, asked.region, asked.offset, asked.size_bytes)


def _as_bytes(array: NDArray[Any]) -> Part:
    """Return an output's bytes where they are, or a copy where they are not as they have to be."""
    if array.dtype.kind in "OU":
        return encode_text(array)
    if sys.byteorder == "big":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.nbytes <= COPIED_BYTES:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _put(target: Target, data: Part) -> None:
    if len(data) > target.room_bytes:
        raise MessageTooLarge(
            f"Output {target.name} has {len(data)} bytes; there is room for {target.room_bytes}."
        )
    assert target.region is not None
    target.region[target.offset : target.offset + len(data)] = data


def read_labels(head: bytes, data: bytes) -> list[int | str]:
    """Return the labels of a prediction's samples: the numbers or the names of their classes.

    Args:
        head: Describes one tensor: ``labels`` of ``int64`` or text, shape (N,).
        data: Its bytes.

    Raises:
        InvalidMessage: They are no labels.
    """
    described = unpack_head(head)
    if [(each.name, len(each.shape), each.place) for each in described] != [("labels", 1, Place.DATA)]:
        raise InvalidMessage("Feedback is one tensor, labels, of one dimension.")
    given = described[0]
    dtype = TEXT if given.element_type == TEXT else "int64"
    source = _source(given._replace(region=0), Tensor("labels", dtype, (-1,)), Regions(0, are_trusted=False))
    if source.size_bytes != len(data) or source.offset:
        raise InvalidMessage(f"The labels take {source.size_bytes} bytes; {len(data)} came.")
    labels: list[int | str] = source.read(source.bind(bytearray(data), 0)).tolist()
    return labels
