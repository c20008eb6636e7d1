"""COSE_Sign1: one signed message, small enough for a microcontroller (RFC 9052, section 4.2).

::

    COSE_Sign1 = 18([ protected: bstr, unprotected: {}, payload: bstr, signature: bstr(64) ])
    protected  = << { 1 (alg): -8 (EdDSA), 4 (kid): bstr(16) } >>
    signed     = << [ "Signature1", protected, external_aad, payload ] >>      the Sig_structure

The key id is the first 16 bytes of the SHA-256 of the raw Ed25519 public key. ``external_aad`` names
what kind of message is signed, so that a signature made for one purpose is worthless for another. All
CBOR is deterministically encoded (RFC 8949, section 4.2.1).

This file neither holds keys nor computes signatures: the caller passes a function that does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import cbor2

from fleet.protocol import cbor
from fleet.protocol.errors import SignatureInvalid

COSE_SIGN1_TAG = 18
ALGORITHM_HEADER = 1
KEY_ID_HEADER = 4
EDDSA = -8
KEY_ID_SIZE_BYTES = 16
SIGNATURE_SIZE_BYTES = 64


class Envelope(NamedTuple):
    """A COSE_Sign1 message taken apart, **not yet verified**: only the key id may be looked at.

    Attributes:
        key_id: 16 bytes that name the signer's key.
        signed: The bytes that the signature covers.
        signature: 64 bytes.
        payload: The contents, to be touched only after the signature was verified over ``signed``.
    """

    key_id: bytes
    signed: bytes
    signature: bytes
    payload: bytes


def key_id(public_key: bytes) -> bytes:
    """Return the 16-byte id of a raw 32-byte Ed25519 public key."""
    return hashlib.sha256(public_key).digest()[:KEY_ID_SIZE_BYTES]


def sign1(
    payload: bytes, *, signer_key_id: bytes, external_aad: bytes, sign: Callable[[bytes], bytes]
) -> bytes:
    """Return a COSE_Sign1 message.

    Args:
        payload: What is signed.
        signer_key_id: `key_id` of the signing key.
        external_aad: The purpose of the signature.
        sign: Returns the Ed25519 signature of the bytes it is given.
    """
    protected = cbor.dumps({ALGORITHM_HEADER: EDDSA, KEY_ID_HEADER: signer_key_id})
    signature = sign(_sig_structure(protected, external_aad, payload))
    return cbor.dumps(cbor2.CBORTag(COSE_SIGN1_TAG, [protected, {}, payload, signature]))


def open1(message: bytes, *, external_aad: bytes) -> Envelope:
    """Take a COSE_Sign1 message apart without trusting any of it.

    Args:
        message: The bytes received; the caller has bounded their size.
        external_aad: The purpose for which the signature must have been made.

    Raises:
        SignatureInvalid: The bytes are not a COSE_Sign1 message of the form at the head of this file.
    """
    tag = _loads(message)
    if not isinstance(tag, cbor2.CBORTag) or tag.tag != COSE_SIGN1_TAG:
        raise _malformed("it is not tagged COSE_Sign1")
    parts = tag.value
    if not isinstance(parts, (list, tuple)) or len(parts) != 4:
        raise _malformed("it does not have four parts")
    protected, unprotected, payload, signature = parts
    if not isinstance(protected, bytes) or not isinstance(payload, bytes) or unprotected != {}:
        raise _malformed("its parts have the wrong types")
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_SIZE_BYTES:
        raise _malformed("its signature has the wrong size")
    header = _loads(protected)
    if not isinstance(header, dict) or header.keys() != {ALGORITHM_HEADER, KEY_ID_HEADER}:
        raise _malformed("its protected header is not {alg, kid}")
    signer = header[KEY_ID_HEADER]
    if header[ALGORITHM_HEADER] != EDDSA or not isinstance(signer, bytes) or len(signer) != KEY_ID_SIZE_BYTES:
        raise _malformed("its algorithm or key id is not the one used here")
    return Envelope(signer, _sig_structure(protected, external_aad, payload), signature, payload)


def _sig_structure(protected: bytes, external_aad: bytes, payload: bytes) -> bytes:
    return cbor.dumps(["Signature1", protected, external_aad, payload])


def _loads(data: bytes) -> Any:
    try:
        return cbor.loads(data)
    except ValueError as error:
        raise _malformed(str(error)) from error


def _malformed(why: str) -> SignatureInvalid:
    return SignatureInvalid(f"The signed message is malformed: {why}.")
