"""Read flatbuffer tables from bytes that nobody vouches for.

The flatbuffers library for Python has no verifier: on damaged bytes its accessors read anything, raise
anything or never end. Here every access is checked first, and everything wrong is an `InvalidModel`.

::

    table:   [i32 distance back to its vtable][fields …]
    vtable:  [u16 bytes of the vtable][u16 bytes of the table][u16 place of field 0][u16 field 1] …
    vector:  [u32 count][items …]          string: a vector of UTF-8 and a zero
    reference to a table, vector or string: [u32 distance forward]

A field whose place is 0 or beyond the vtable is absent. Numbers are little-endian and aligned to their size.
(FlatBuffers internals, https://flatbuffers.dev/internals/.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.errors import InvalidModel

MAX_TEXT_BYTES = 4096
MAX_FIELD_BYTES = 8
MAX_FIELDS = 64


def root(data: bytes) -> Table:
    """Return the table that a flatbuffer is about.

    Raises:
        InvalidModel: There is none.
    """
    checked = _Bytes(data)
    return Table(checked, checked.forward(0))


class _Bytes:
    """Bytes that are read within their bounds, and not without end.

    References may make a small file look large: a million subgraphs that are all the same. So reading costs
    its bytes, and the budget is twice the file. Contents of buffers are not read and cost nothing.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._budget_bytes = 2 * len(data) + 1024

    def spend(self, size_bytes: int) -> None:
        """Raise when more has been read than there is."""
        self._budget_bytes -= size_bytes
        if self._budget_bytes < 0:
            raise _damaged("its parts are used over and over")

    def within(self, position: int, size_bytes: int) -> None:
        """Raise unless that many bytes are there."""
        if position < 0 or position + size_bytes > len(self.data):
            raise _damaged(f"{size_bytes} bytes at byte {position} are outside of the file")

    def number(self, kind: str, position: int) -> int:
        """Return a number that is aligned to its size."""
        size = struct.calcsize(kind)
        self.within(position, size)
        if position % size:
            raise _damaged(f"the number at byte {position} is not aligned")
        value: int = struct.unpack_from(kind, self.data, position)[0]
        return value

    def forward(self, position: int) -> int:
        """Return what a reference points at."""
        return position + self.number("<I", position)


class Table:
    """A table whose own bytes and vtable lie within the file.

    Args:
        data: The whole file.
        position: Where the table begins.

    Raises:
        InvalidModel: It does not lie within the file.
    """

    def __init__(self, data: _Bytes, position: int) -> None:
        self._data = data
        self._position = position
        vtable = position - data.number("<i", position)
        size, self._size = data.number("<H", vtable), data.number("<H", vtable + 2)
        if size < 4 or size % 2 or self._size < 4 or size > 4 + 2 * MAX_FIELDS:
            raise _damaged(f"the table at byte {position} has no proper vtable")
        data.within(vtable, size)
        data.within(position, self._size)
        data.spend(self._size)
        self._places = struct.unpack_from(f"<{size // 2 - 2}H", data.data, vtable + 4)
        if any(place and not 4 <= place < self._size for place in self._places):
            raise _damaged(f"the table at byte {position} has fields outside of it")

    def check_numbers(self) -> None:
        """Check that any field can be read as a number of any width without leaving the data.

        Raises:
            InvalidModel: One cannot.
        """
        for place in self._places:
            if place:
                self._data.within(self._position + place, MAX_FIELD_BYTES)

    def has(self, field: int) -> bool:
        """Return whether a field is there."""
        return self._at(field, 1) is not None

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """Return a whole number.

        Args:
            field: Number of the field.
            kind: Its type, as `struct` writes it.
            default: What the schema says for an absent field.

        Raises:
            InvalidModel: It does not lie within the table.
        """
        place = self._at(field, struct.calcsize(f"<{kind}"))
        return default if place is None else self._data.number(f"<{kind}", place)

    def table(self, field: int) -> Table | None:
        """Return a table that a field refers to; None if there is none."""
        place = self._at(field, 4)
        return None if place is None else Table(self._data, self._data.forward(place))

    def tables(self, field: int) -> Iterator[Table]:
        """Yield the tables of a vector; nothing if there is none."""
        start, count = self._vector(field, 4)
        self._data.spend(4 * count)
        for number in range(count):
            yield Table(self._data, self._data.forward(start + 4 * number))

    def vector(self, field: int, dtype: Any) -> NDArray[Any]:
        """Return a vector of numbers, without copying it; empty if there is none."""
        kind = np.dtype(dtype).newbyteorder("<")
        start, count = self._vector(field, kind.itemsize)
        self._data.spend(count * kind.itemsize)
        return np.frombuffer(self._data.data, dtype=kind, count=count, offset=start)

    def contents(self, field: int) -> memoryview:
        """Return a vector of bytes that is not looked into; empty if there is none."""
        start, count = self._vector(field, 1)
        return memoryview(self._data.data)[start : start + count]

    def text(self, field: int) -> str:
        """Return a string; empty if there is none."""
        start, count = self._vector(field, 1)
        if count > MAX_TEXT_BYTES:
            raise _damaged(f"a name has {count} bytes")
        if count and self._data.data[start + count : start + count + 1] != b"\0":
            raise _damaged("a name does not end")  # C++ reads up to the zero behind it
        try:
            self._data.spend(count)
            return self._data.data[start : start + count].decode("utf-8")
        except UnicodeDecodeError as error:
            raise _damaged("a name is not UTF-8") from error

    def _at(self, field: int, size: int) -> int | None:
        place = self._places[field] if field < len(self._places) else 0
        if not place:
            return None
        if place + size > self._size:
            raise _damaged(f"field {field} of the table at byte {self._position} is longer than the table")
        return self._position + place

    def _vector(self, field: int, item_size: int) -> tuple[int, int]:
        """Return where the items of a vector begin, and their number."""
        place = self._at(field, 4)
        if place is None:
            return 0, 0
        start = self._data.forward(place)
        count = self._data.number("<I", start)
        self._data.within(start + 4, count * item_size)
        if (start + 4) % min(item_size, 8):
            raise _damaged(f"the vector at byte {start} is not aligned")
        return start + 4, count


def _damaged(why: str) -> InvalidModel:
    return InvalidModel(f"The TFLite file is damaged: {why}.", remedy="Export or copy it again.")
