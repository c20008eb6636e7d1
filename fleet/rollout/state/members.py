"""The devices of a rollout: their ids, and the place of each, in some 30 bytes a device.

::

    ids:     b"cam-17cam-4cam-203…"      the ids one after the other, in the rollout's order
    ends:    [6, 11, 18, …]              where each ends
    hashes:  [h0 ≤ h1 ≤ h2 …]            BLAKE2b-64 of every id, sorted
    places:  [p0, p1, p2, …]             whose hash each is

A device is found by bisecting the hashes; its id is then compared, and those of equal hashes beside it. A
dict of a million strings would take three times as much. All of it is immutable by contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Self

import numpy as np
from numpy.typing import NDArray


class Members:
    """Devices in the rollout's order.

    Args:
        ids: One after the other, UTF-8.
        ends: Where each id ends in ``ids``, shape (n,).
        hashes: Of every id, ascending, shape (n,).
        places: Of the devices with these hashes, shape (n,).
    """

    __slots__ = ("_ends", "_hashes", "_ids", "_places")

    def __init__(
        self, ids: bytes, ends: NDArray[np.uint32], hashes: NDArray[np.uint64], places: NDArray[np.uint32]
    ) -> None:
        self._ids, self._ends, self._hashes, self._places = ids, ends, hashes, places

    @classmethod
    def of(cls, device_ids: Iterable[str]) -> Self:
        """Return the devices, in this order, without repeats."""
        encoded = [device_id.encode() for device_id in device_ids]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.uint32)
        hashes = _hashes(encoded)
        order = np.argsort(hashes, kind="stable")
        return cls(b"".join(encoded), ends, hashes[order], order.astype(np.uint32))

    def plus(self, device_ids: Iterable[str]) -> Members:
        """Return these devices and others after them; it costs a copy of the arrays, not new hashes."""
        encoded = [device_id.encode() for device_id in device_ids]
        start = int(self._ends[-1]) if len(self) else 0
        ends = start + np.cumsum([len(name) for name in encoded], dtype=np.uint32)
        hashes = _hashes(encoded)
        order = np.argsort(hashes, kind="stable")
        at = np.searchsorted(self._hashes, hashes[order])
        return Members(
            self._ids + b"".join(encoded),
            np.concatenate((self._ends, ends)).astype(np.uint32),
            np.insert(self._hashes, at, hashes[order]),
            np.insert(self._places, at, (order + len(self)).astype(np.uint32)),
        )

    def __len__(self) -> int:
        return len(self._ends)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Members):
            return NotImplemented
        same = self._ids == other._ids and np.array_equal(self._ends, other._ends)
        return self is other or same

    __hash__ = None  # type: ignore[assignment]

    def device_id(self, place: int) -> str:
        """Return the id of the device at a place."""
        start = int(self._ends[place - 1]) if place else 0
        return self._ids[start : int(self._ends[place])].decode()

    def device_ids(self, places: NDArray[np.intp]) -> list[str]:
        """Return the ids of the devices at many places."""
        ends = self._ends[places].tolist()
        starts = np.where(places > 0, self._ends[places - 1], 0).tolist()
        ids = self._ids
        return [ids[start:end].decode() for start, end in zip(starts, ends, strict=True)]

    def is_at(self, place: int, device_id: str) -> bool:
        """Whether it is this device that is at a place."""
        start = int(self._ends[place - 1]) if place else 0
        return self._ids[start : int(self._ends[place])] == device_id.encode()

    def are_at(self, places: NDArray[np.intp], device_ids: list[str]) -> NDArray[np.bool_]:
        """Whether it is these devices that are at these places; none are at places that there are not."""
        if len(self) == 0:
            return np.zeros(len(places), dtype=bool)
        there = self.device_ids(np.minimum(places, len(self) - 1))
        found = places < len(self)
        if there != device_ids:
            found &= [name == device_id for name, device_id in zip(there, device_ids, strict=True)]
        return found

    def place(self, device_id: str) -> int | None:
        """Return the place of a device; None if it is not among these."""
        sought = _hash(device_id.encode())
        at = int(np.searchsorted(self._hashes, np.uint64(sought)))
        while at < len(self._hashes) and int(self._hashes[at]) == sought:
            place = int(self._places[at])
            if self.is_at(place, device_id):
                return place
            at += 1
        return None

    def places(self, device_ids: Sequence[str]) -> list[int | None]:
        """Return the place of each device; looking for many at once costs half as much."""
        encoded = [device_id.encode() for device_id in device_ids]
        sought = _hashes(encoded)
        at = np.minimum(np.searchsorted(self._hashes, sought), max(0, len(self) - 1))
        if len(self) == 0 or len(sought) == 0:
            return [None] * len(encoded)
        found: list[int | None] = [None] * len(encoded)
        same = np.flatnonzero(self._hashes[at] == sought)
        places, ids = self._places[at[same]].astype(np.intp), self._ids
        starts = np.where(places > 0, self._ends[places - 1], 0).tolist()
        spans = zip(starts, self._ends[places].tolist(), strict=True)
        for turn, place, (start, end) in zip(same.tolist(), places.tolist(), spans, strict=True):
            is_it = ids[start:end] == encoded[turn]
            found[turn] = place if is_it else self.place(device_ids[turn])
        return found

    def extends(self, others: Members) -> bool:
        """Whether these begin with all of the others, at the same places."""
        count = len(others)
        return self is others or (
            len(self) >= count
            and np.array_equal(self._ends[:count], others._ends)
            and self._ids.startswith(others._ids)
        )

    @property
    def size_bytes(self) -> int:
        """How much memory they take."""
        return len(self._ids) + self._ends.nbytes + self._hashes.nbytes + self._places.nbytes


def _hash(name: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little")


def _hashes(names: Sequence[bytes]) -> NDArray[np.uint64]:
    digests = b"".join(blake2b(name, digest_size=8).digest() for name in names)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)
