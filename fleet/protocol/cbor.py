"""CBOR (RFC 8949) as we use it: deterministic when written, exactly one value when read."""

from __future__ import annotations

import io
from typing import Any

import cbor2


def dumps(value: Any) -> bytes:
    """Return the value's deterministic encoding (RFC 8949, section 4.2.1)."""
    return cbor2.dumps(value, canonical=True)


def loads(data: bytes) -> Any:
    """Return the value in the bytes.

    Args:
        data: Bounded in size by the caller.

    Raises:
        ValueError: The bytes are not one CBOR value, or others follow it.
    """
    with io.BytesIO(data) as stream:
        try:
            value = cbor2.CBORDecoder(stream).decode()
        except (cbor2.CBORDecodeError, RecursionError, MemoryError) as error:
            raise ValueError("it is not CBOR") from error
        if stream.read(1):
            raise ValueError("bytes follow its end")
    return value
