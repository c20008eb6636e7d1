"""A request's body: its content encoding and its JSON.

``Content-Encoding`` may be gzip (RFC 1952) or deflate (RFC 1950). A few kilobytes can unpack to gigabytes,
so unpacking stops at a bound: nothing larger is ever in memory. Answers are not packed; on one machine that
costs more than it saves.
"""

from __future__ import annotations

import zlib
from typing import TypeVar

import msgspec

from fleet.protocol.errors import InvalidMessage, MessageTooLarge

_Message = TypeVar("_Message", bound=msgspec.Struct)

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""What tells zlib the container of each encoding; ``x-gzip`` is gzip's older name (RFC 9110, 8.4.1.3)."""


def unpack(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Return a body without its encoding.

    Args:
        body: As received.
        encoding: The header's value; empty or ``identity`` for none.
        limit_bytes: Largest result.

    Raises:
        InvalidMessage: The encoding is unknown, or the body is not in it.
        MessageTooLarge: The result would be larger.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    if name not in _WINDOW_BITS:
        raise InvalidMessage(
            f"The content encoding {encoding!r:.40} is not known here.", remedy="Send gzip, deflate or none."
        )
    unpacker = zlib.decompressobj(_WINDOW_BITS[name])
    try:
        unpacked = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise InvalidMessage(f"The request is not {name}: {error}.") from error
    if len(unpacked) > limit_bytes:
        raise MessageTooLarge(f"The request is larger than {limit_bytes} bytes when it is unpacked.")
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidMessage(f"The request is not one whole {name} stream.")
    return unpacked


def decode(text: bytes | memoryview, kind: type[_Message]) -> _Message:
    """Return the message in JSON, checked.

    Raises:
        InvalidMessage: It is none of this kind.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"The request cannot be understood: {error}.") from error
