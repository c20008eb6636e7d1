"""The director as this device trusts it: from received bytes to an accepted assignment.

::

    bytes → size → COSE form → known key? → signature → contents → mine, newer, in time? → written → done

Nothing right of a check is touched before it holds. What is accepted is one file, ``assignment.accepted``,
with the message as it was signed and its sequence number: written in one step before anything is done about
it, so that no crash makes the device take an older assignment, or forget the one it said it has. At
start-up it is read before anything else, and the signature is verified again. If it cannot be read, nothing
is accepted any more. The director's keys are no such memory: lost ones are asked for anew.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent import durable
from fleet.protocol import cose
from fleet.protocol.assignment import (
    EXTERNAL_AAD,
    MAX_ASSIGNMENT_SIZE_BYTES,
    Assignment,
    check_acceptable,
    decode_assignment,
)
from fleet.protocol.director import DirectorKeys, decode_director_keys, encode_director_keys
from fleet.protocol.errors import (
    AssignmentForOtherDevice,
    InvalidInput,
    MessageTooLarge,
    MusterError,
    SignatureInvalid,
    StorageCorrupt,
    StorageError,
    TrustError,
)

log = logging.getLogger(__name__)

ACCEPTED_FILE = "assignment.accepted"
KEYS_FILE = "director.json"


class _Accepted(msgspec.Struct, frozen=True):
    """What the file holds."""

    sequence: int
    message: bytes


class Director:
    """Verifies assignments and remembers the last one.

    Args:
        folder: Where keys and the last assignment are kept.
        device_id: This device.
    """

    def __init__(self, folder: Path, device_id: str) -> None:
        self._folder = folder
        self._device_id = device_id
        self._keys: dict[bytes, bytes] = {}
        self._last = b""
        self._damage: StorageCorrupt | None = None
        self.sequence = 0
        """Highest sequence number accepted; 0 for none."""

    def load(self) -> Assignment | None:
        """Read what is kept and return the last accepted assignment, verified again; None if there is none.

        Its expiry is not checked again: it limits when an order may be *accepted*, and a device that was
        offline for long goes on running what it was ordered to.

        Raises:
            StorageCorrupt: The file is damaged. No assignment will be accepted from now on, because it
                cannot be told which are old.
            TrustError: The assignment does not verify (any more, or before the keys are fetched anew); its
                sequence number still counts.
            InvalidInput: The assignment is signed nonsense; its sequence number still counts.
        """
        try:
            accepted = _read_accepted(self._folder)
        except StorageCorrupt as error:
            self._damage = error
            raise
        if accepted is not None:
            self.sequence, self._last = accepted.sequence, accepted.message
        self._keys = _read_keys(self._folder)
        return self.last_assignment() if accepted is not None else None

    def last_assignment(self) -> Assignment:
        """Return the last accepted assignment, verified with the keys that are trusted now.

        Raises:
            TrustError: It does not verify.
            InvalidInput: It is signed nonsense.
        """
        assignment = self._verified(self._last)
        if assignment.device_id != self._device_id:
            raise AssignmentForOtherDevice("The stored assignment is for another device.")
        return assignment

    def trust(self, keys: DirectorKeys) -> None:
        """Take the keys that the image repository vouches for now in place of those before.

        Raises:
            StorageError: They cannot be kept.
        """
        if keys.by_id() != self._keys:
            durable.make_own_folder(self._folder)
            durable.write_file(self._folder / KEYS_FILE, encode_director_keys(keys))
            self._keys = keys.by_id()
            log.info("The director has %d key(s).", len(self._keys))

    def is_last(self, message: bytes) -> bool:
        """Tell whether these are the very bytes accepted last: brokers deliver messages twice at times."""
        return bool(message) and message == self._last

    def repeats_last(self, message: bytes) -> bool:
        """Tell whether a message has the orders accepted last, signed anew: the hub repeats them.

        Args:
            message: The bytes received.

        Returns:
            True if nothing but the times of issue and expiry differs from the last accepted assignment.

        Raises:
            TrustError: Its signature does not hold.
            InvalidInput: The bytes are too many, or signed nonsense.
        """
        if self._damage is not None or not self._last:
            return False
        again = self._verified(message)
        try:
            last = self.last_assignment()
        except MusterError:
            return False  # what cannot be verified is not compared with
        times = {"issued_at_s": last.issued_at_s, "expires_at_s": last.expires_at_s}
        return msgspec.structs.replace(again, **times) == last

    def knows_signer(self, message: bytes) -> bool:
        """Tell whether the key that a message names is known; if not, fresh metadata may vouch for it.

        Raises:
            InvalidInput: The bytes are too many.
            SignatureInvalid: They are no signed message.
        """
        return _opened(message).key_id in self._keys

    def accept(self, message: bytes, *, now_s: float) -> Assignment:
        """Verify an assignment, write it down and return it.

        Args:
            message: The bytes received.
            now_s: Unix time.

        Raises:
            TrustError: A rule of the trust model does not hold.
            InvalidInput: The bytes are too many, or signed nonsense.
            StorageError: It cannot be written down, so it must not be acted on.
        """
        if self._damage is not None:
            raise self._damage
        assignment = self._verified(message)
        check_acceptable(assignment, device_id=self._device_id, last_sequence=self.sequence, now_s=now_s)
        accepted = _Accepted(assignment.sequence, message)
        durable.write_file(self._folder / ACCEPTED_FILE, msgspec.msgpack.encode(accepted))
        self.sequence, self._last = assignment.sequence, message
        return assignment

    def _verified(self, message: bytes) -> Assignment:
        envelope = _opened(message)
        key = self._keys.get(envelope.key_id)
        if key is None:
            raise SignatureInvalid(f"No director key has the id {envelope.key_id.hex()}.")
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(envelope.signature, envelope.signed)
        except (InvalidSignature, ValueError) as error:
            raise SignatureInvalid("The assignment's signature does not match.") from error
        return decode_assignment(envelope.payload)


def read_sequence(folder: Path) -> int:
    """Return the highest sequence number accepted; 0 if there is none or it is damaged."""
    try:
        accepted = _read_accepted(folder)
    except StorageCorrupt:
        return 0
    return 0 if accepted is None else accepted.sequence


def _read_accepted(folder: Path) -> _Accepted | None:
    """Return the last accepted assignment; None if there is none.

    Raises:
        StorageCorrupt: The file cannot be read or understood.
    """
    try:
        stored = _read(folder / ACCEPTED_FILE)
        return None if stored is None else msgspec.msgpack.decode(stored, type=_Accepted)
    except (StorageError, msgspec.DecodeError) as error:
        raise StorageCorrupt(
            "The last accepted assignment is damaged, so newer ones cannot be told from older ones.",
            remedy="Enrol the device again.",
        ) from error


def _read_keys(folder: Path) -> dict[bytes, bytes]:
    """Return the director's keys by their ids; none if they are damaged: they are then fetched again."""
    try:
        stored = _read(folder / KEYS_FILE)
        return {} if stored is None else decode_director_keys(stored).by_id()
    except (StorageError, InvalidInput, TrustError) as error:
        log.warning("The director's keys are damaged and will be fetched again: %s", error)
        return {}


def _opened(message: bytes) -> cose.Envelope:
    if len(message) > MAX_ASSIGNMENT_SIZE_BYTES:
        raise MessageTooLarge(
            f"An assignment of {len(message)} bytes was received; {MAX_ASSIGNMENT_SIZE_BYTES} are allowed."
        )
    return cose.open1(message, external_aad=EXTERNAL_AAD)


def _read(path: Path) -> bytes | None:
    with durable.storage_errors(path):
        return path.read_bytes() if path.exists() else None
