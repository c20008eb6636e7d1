"""How many different devices were heard: counts that merge, in at most a kilobyte.

Numbers of devices do not add up, because the same device is heard again and again. What merges is a set, and
a set of 64-bit hashes is kept as long as it is small; then it becomes a HyperLogLog sketch::

    bytes           meaning
    8 n             n hashes in ascending order, n < 128: the number is exact
    1,024           1,024 registers, each for a part of all devices: 1 + the most leading zeros of a hash

The first 10 bits of a hash say which register, the others give the zeros. Merging takes the union, or the
larger of each pair of registers; so it may be repeated, and its order does not matter. The standard error of
the estimate is 1.04 / sqrt(1,024) = 3.3 %; below 2,560 devices it comes from the empty registers ("linear
counting") and is smaller.

Sources: Flajolet, Fusy, Gandouet, Meunier, "HyperLogLog" (2007), with 64-bit hashes, for which no correction
of large numbers is needed (Heule, Nunkesser, Hall 2013).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.errors import InvalidMessage

NOBODY = b""
FEWEST_ESTIMATED = 128
"""So many hashes take as much space as the registers."""

_HASH_SIZE_BYTES = 8
_INDEX_BITS = 10
_REGISTERS = 1 << _INDEX_BITS
_ALPHA = 0.7213 / (1.0 + 1.079 / _REGISTERS)
_NONE = np.zeros(0, dtype=np.uint64)
_MOST_LINEAR = 2.5 * _REGISTERS


def heard_of(names: Iterable[str]) -> bytes:
    """Return the set of these names."""
    return _packed(np.unique(np.fromiter((_hash(name) for name in names), dtype=np.uint64)))


def merge_heard(sets: Iterable[bytes]) -> bytes:
    """Return the union of sets.

    Raises:
        InvalidMessage: One of them is no set.
    """
    different = list(dict.fromkeys(sets))
    if len(different) == 1:
        return different[0]
    exact = np.concatenate([_NONE, *(_hashes(heard) for heard in different if _is_exact(heard))])
    merged = _packed(np.unique(exact))
    sketches = [_registers(heard) for heard in different if not _is_exact(heard)]
    return np.maximum.reduce([_registers(merged), *sketches]).tobytes() if sketches else merged


def count_heard(heard: bytes) -> int:
    """Return how many names are in a set: exactly below `FEWEST_ESTIMATED`, else an estimate.

    Raises:
        InvalidMessage: It is no set.
    """
    if _is_exact(heard):
        return len(heard) // _HASH_SIZE_BYTES
    registers = _registers(heard)
    estimate = _ALPHA * _REGISTERS**2 / float(np.exp2(-registers.astype(np.float64)).sum())
    empty = int((registers == 0).sum())
    if estimate <= _MOST_LINEAR and empty:
        estimate = _REGISTERS * math.log(_REGISTERS / empty)
    return max(FEWEST_ESTIMATED, round(estimate))


@lru_cache(maxsize=1 << 17)
def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=_HASH_SIZE_BYTES).digest(), "little")


def _is_exact(heard: bytes) -> bool:
    return len(heard) < _REGISTERS


def _hashes(heard: bytes) -> NDArray[np.uint64]:
    if len(heard) % _HASH_SIZE_BYTES:
        raise InvalidMessage("A set of devices is damaged.")
    return np.frombuffer(heard, dtype="<u8")


def _packed(hashes: NDArray[np.uint64]) -> bytes:
    if len(hashes) < FEWEST_ESTIMATED:
        return hashes.astype("<u8").tobytes()
    return _sketched(hashes).tobytes()


def _sketched(hashes: NDArray[np.uint64]) -> NDArray[np.uint8]:
    registers = np.zeros(_REGISTERS, dtype=np.uint8)
    rest_bits = 64 - _INDEX_BITS
    rest = hashes & np.uint64((1 << rest_bits) - 1)
    # 53 bits and less are exact in a double, of which frexp gives the highest bit; one more cannot matter.
    _, length = np.frexp((rest >> np.uint64(1)).astype(np.float64))
    ranks = np.minimum(rest_bits - 1 - length + 1, rest_bits).astype(np.uint8)
    np.maximum.at(registers, (hashes >> np.uint64(rest_bits)).astype(np.intp), ranks)
    return registers


def _registers(heard: bytes) -> NDArray[np.uint8]:
    if _is_exact(heard):
        return _sketched(_hashes(heard))
    if len(heard) != _REGISTERS:
        raise InvalidMessage("A sketch of devices is damaged.")
    return np.frombuffer(heard, dtype=np.uint8)
