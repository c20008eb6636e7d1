"""The director: signs which device runs what.

Its public key is a target of the image repository (`fleet.protocol.director`), so that devices believe an
assignment because the repository vouches for the key, and no one else.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.protocol import cose
from fleet.protocol.assignment import (
    EXTERNAL_AAD,
    MAX_ASSIGNMENT_SIZE_BYTES,
    Assignment,
    encode_assignment,
)
from fleet.protocol.errors import MessageTooLarge
from hub.trust.keys import raw_public_key


class Director:
    """Signs assignments.

    Args:
        private_key: The director's key.
    """

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self._key_id = cose.key_id(raw_public_key(private_key))

    @property
    def public_key(self) -> bytes:
        """The raw 32-byte public key."""
        return raw_public_key(self._private_key)

    def sign(self, assignment: Assignment) -> bytes:
        """Return the COSE_Sign1 message that orders this.

        Raises:
            MessageTooLarge: It names more models than a device would accept.
        """
        message = cose.sign1(
            encode_assignment(assignment),
            signer_key_id=self._key_id,
            external_aad=EXTERNAL_AAD,
            sign=self._private_key.sign,
        )
        if len(message) > MAX_ASSIGNMENT_SIZE_BYTES:
            raise MessageTooLarge(
                f"The assignment for {assignment.device_id} takes {len(message)} bytes; "
                f"{MAX_ASSIGNMENT_SIZE_BYTES} are allowed.",
                remedy="Assign fewer models to this device.",
            )
        return message
