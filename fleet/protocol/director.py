"""Which keys may sign assignments: a TUF target, so that the image repository vouches for the director.

The target `DIRECTOR_TARGET` holds JSON::

    {"keys": ["<raw Ed25519 public key, 64 hexadecimal digits>", …]}

Two keys are listed while one replaces the other.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from fleet.protocol.cose import key_id
from fleet.protocol.errors import MetadataRejected
from fleet.protocol.names import EXACT_SHA256_PATTERN

DIRECTOR_TARGET = "director.json"
MAX_DIRECTOR_SIZE_BYTES = 4096

PublicKeyHex = Annotated[str, msgspec.Meta(pattern=EXACT_SHA256_PATTERN)]


class DirectorKeys(msgspec.Struct, frozen=True):
    """The director's public keys, in hexadecimal."""

    keys: Annotated[tuple[PublicKeyHex, ...], msgspec.Meta(min_length=1, max_length=8)]

    def by_id(self) -> dict[bytes, bytes]:
        """Return the raw public keys by their COSE key id."""
        raw = [bytes.fromhex(key) for key in self.keys]
        return {key_id(key): key for key in raw}


# Made here, once: msgspec learns a type at its first use, and crashes if two threads use it first at once.
_DECODER = msgspec.json.Decoder(DirectorKeys)


def encode_director_keys(keys: DirectorKeys) -> bytes:
    """Return the target's bytes."""
    return msgspec.json.encode(keys, order="deterministic")


def decode_director_keys(data: bytes) -> DirectorKeys:
    """Return the keys in a target **that was verified against trusted metadata**.

    Raises:
        MetadataRejected: The target does not hold director keys.
    """
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MetadataRejected(f"The director's keys cannot be understood: {error}.") from error
