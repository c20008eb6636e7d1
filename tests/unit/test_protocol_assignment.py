"""Assignments against shared byte vectors, and every reason for which a device refuses one.

The vectors were written by encoders of their own, so that an error of ours cannot agree with itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fleet.protocol.assignment import (
    CLOCK_TOLERANCE_S,
    EXTERNAL_AAD,
    Assignment,
    ModelOrder,
    VariantPolicy,
    check_acceptable,
    decode_assignment,
    encode_assignment,
)
from fleet.protocol.capture import CapturePolicy
from fleet.protocol.cose import key_id, open1, sign1
from fleet.protocol.director import DirectorKeys, decode_director_keys, encode_director_keys
from fleet.protocol.errors import (
    AssignmentExpired,
    AssignmentForOtherDevice,
    AssignmentReplayed,
    InvalidAssignment,
    MetadataRejected,
    SignatureInvalid,
)
from fleet.protocol.maintenance import Maintenance, Mode
from fleet.protocol.wishes import LogLevel, Wishes

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "assignment.json").read_text(encoding="utf-8")
)
CASES: list[dict[str, Any]] = VECTORS["cases"]
SECRET = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["secret_key"]))
PUBLIC = bytes.fromhex(VECTORS["public_key"])


def wishes_of(case: dict[str, Any]) -> Wishes:
    return Wishes(
        log_level=LogLevel(case["log_level"]) if "log_level" in case else None,
        updates_held=case.get("updates_held", False),
        diagnostics=case.get("diagnostics"),
    )


def assignment_of(case: dict[str, Any]) -> Assignment:
    return Assignment(
        device_id=case["device_id"],
        sequence=case["sequence"],
        issued_at_s=case["issued_at_s"],
        expires_at_s=case["expires_at_s"],
        models=tuple(
            ModelOrder(
                model=m["model"],
                version=m["version"],
                manifest_sha256=bytes.fromhex(m["manifest_sha256"]),
                variant=m["variant"],
                deployment_id=m["deployment_id"],
                alternatives=tuple(m.get("alternatives", ())),
                policy=VariantPolicy(m.get("policy", "first")),
                shadow_s=m.get("shadow_s", 0),
                capture=CapturePolicy(**m["capture"]) if "capture" in m else None,
                maintenance=msgspec.convert(m["maintenance"], Maintenance) if "maintenance" in m else None,
                mode=Mode(m.get("mode", "soft")),
            )
            for m in case["models"]
        ),
        wishes=wishes_of(case.get("wishes", {})),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_what_is_signed_is_the_vector_byte_for_byte(case: dict[str, Any]) -> None:
    payload = encode_assignment(assignment_of(case))
    assert payload.hex() == case["payload"]
    message = sign1(payload, signer_key_id=key_id(PUBLIC), external_aad=EXTERNAL_AAD, sign=SECRET.sign)
    assert message.hex() == case["message"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_the_vector_is_opened_verified_and_understood(case: dict[str, Any]) -> None:
    envelope = open1(bytes.fromhex(case["message"]), external_aad=EXTERNAL_AAD)
    assert envelope.key_id.hex() == VECTORS["key_id"]
    assert envelope.signed.hex() == case["signed"]
    Ed25519PublicKey.from_public_bytes(PUBLIC).verify(envelope.signature, envelope.signed)
    assert decode_assignment(envelope.payload) == assignment_of(case)


def test_a_signature_for_another_purpose_is_worthless() -> None:
    envelope = open1(bytes.fromhex(CASES[1]["message"]), external_aad=b"another purpose")
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(PUBLIC).verify(envelope.signature, envelope.signed)


def test_every_flipped_bit_is_noticed() -> None:
    message = bytes.fromhex(CASES[1]["message"])
    key = Ed25519PublicKey.from_public_bytes(PUBLIC)
    for position in range(len(message) * 8):
        flipped = bytearray(message)
        flipped[position // 8] ^= 1 << position % 8
        try:
            envelope = open1(bytes(flipped), external_aad=EXTERNAL_AAD)
        except SignatureInvalid:
            continue
        if envelope.key_id != key_id(PUBLIC):
            continue  # no such key: refused before any signature is looked at
        with pytest.raises(InvalidSignature):
            key.verify(envelope.signature, envelope.signed)


@pytest.mark.parametrize("size", range(0, 64, 7))
def test_a_truncated_message_is_malformed(size: int) -> None:
    with pytest.raises(SignatureInvalid):
        open1(bytes.fromhex(CASES[1]["message"])[:size], external_aad=EXTERNAL_AAD)


def test_bytes_after_the_message_are_malformed() -> None:
    with pytest.raises(SignatureInvalid, match="follow"):
        open1(bytes.fromhex(CASES[1]["message"]) + b"\x00", external_aad=EXTERNAL_AAD)


PROTECTED = cbor2.dumps({1: -8, 4: key_id(PUBLIC)}, canonical=True)


@pytest.mark.parametrize(
    "value",
    [
        [PROTECTED, {}, b"x", bytes(64)],
        cbor2.CBORTag(98, [PROTECTED, {}, b"x", bytes(64)]),
        cbor2.CBORTag(18, [PROTECTED, {}, b"x"]),
        cbor2.CBORTag(18, "text"),
        cbor2.CBORTag(18, [PROTECTED, {4: b"x"}, b"x", bytes(64)]),
        cbor2.CBORTag(18, [PROTECTED, {}, None, bytes(64)]),
        cbor2.CBORTag(18, [PROTECTED, {}, b"x", bytes(63)]),
        cbor2.CBORTag(18, [b"", {}, b"x", bytes(64)]),
        cbor2.CBORTag(18, [cbor2.dumps({1: -7, 4: bytes(16)}), {}, b"x", bytes(64)]),
        cbor2.CBORTag(18, [cbor2.dumps({1: -8, 4: bytes(15)}), {}, b"x", bytes(64)]),
        cbor2.CBORTag(18, [cbor2.dumps({1: -8}), {}, b"x", bytes(64)]),
        cbor2.CBORTag(18, [cbor2.dumps({1: -8, 4: bytes(16), 2: [1]}), {}, b"x", bytes(64)]),
    ],
)
def test_what_is_not_a_message_of_our_form_is_malformed(value: object) -> None:
    with pytest.raises(SignatureInvalid):
        open1(cbor2.dumps(value), external_aad=EXTERNAL_AAD)


ORDER: dict[int, object] = {1: "digits", 2: 2, 3: bytes(32), 4: "onnx-int8", 5: "r7-0f"}
FIELDS: dict[int, object] = {1: "cam-1", 2: 1, 3: 10, 4: 20, 5: [ORDER]}


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {},
        {**FIELDS, 6: 0},
        {**FIELDS, 1: "../etc"},
        {**FIELDS, 1: b"cam-1"},
        {**FIELDS, 2: -1},
        {**FIELDS, 2: True},
        {**FIELDS, 2: 1.0},
        {**FIELDS, 2: 2**63},
        {**FIELDS, 3: "10"},
        {**FIELDS, 4: None},
        {**FIELDS, 5: {}},
        {**FIELDS, 5: [[]]},
        {**FIELDS, 5: [ORDER, ORDER]},
        {**FIELDS, 5: [{**ORDER, 1: "Digits"}]},
        {**FIELDS, 5: [{**ORDER, 2: -1}]},
        {**FIELDS, 5: [{**ORDER, 3: bytes(31)}]},
        {**FIELDS, 5: [{**ORDER, 3: "00" * 32}]},
        {**FIELDS, 5: [{**ORDER, 4: ""}]},
        {**FIELDS, 5: [{**ORDER, 5: "r7/0f"}]},
        {**FIELDS, 5: [{**ORDER, 6: ["onnx-fp32"]}]},
        {**FIELDS, 5: [{**ORDER, 7: "fastest"}]},
        {**FIELDS, 5: [{**ORDER, 6: [], 7: "fastest"}]},
        {**FIELDS, 5: [{**ORDER, 6: "onnx-fp32", 7: "fastest"}]},
        {**FIELDS, 5: [{**ORDER, 6: [1], 7: "fastest"}]},
        {**FIELDS, 5: [{**ORDER, 6: ["../x"], 7: "fastest"}]},
        {**FIELDS, 5: [{**ORDER, 6: ["onnx-int8"], 7: "fastest"}]},
        {**FIELDS, 5: [{**ORDER, 6: ["a", "a"], 7: "fastest"}]},
        {**FIELDS, 5: [{**ORDER, 6: [f"v{n}" for n in range(9)], 7: "fastest"}]},
        {**FIELDS, 5: [{**ORDER, 6: ["onnx-fp32"], 7: "luckiest"}]},
        {**FIELDS, 5: [{**ORDER, 6: ["onnx-fp32"], 7: "first"}]},
        {**FIELDS, 5: [{**ORDER, 6: ["onnx-fp32"], 7: 1}]},
        {**FIELDS, 5: [{**ORDER, 8: 0}]},
        {**FIELDS, 5: [{**ORDER, 8: 7 * 86400 + 1}]},
        {**FIELDS, 5: [{**ORDER, 8: 1.0}]},
        {**FIELDS, 5: [{**ORDER, 8: True}]},
        {**FIELDS, 5: [{**ORDER, 99: 1}]},
        {**FIELDS, 5: [{**ORDER, 9: {}}]},
        {**FIELDS, 5: [{**ORDER, 9: []}]},
        {**FIELDS, 5: [{**ORDER, 9: {1: 2, 2: 3, 3: 4}}]},  # nothing is captured
        {**FIELDS, 5: [{**ORDER, 9: {1: 2, 2: 3, 4: 5}}]},
        {**FIELDS, 5: [{**ORDER, 9: {1: 2, 2: 3, 3: 4, 4: 5, 8: 1}}]},
        {**FIELDS, 5: [{**ORDER, 9: {1: 2, 2: 3, 3: 4, 4: 0}}]},
        {**FIELDS, 5: [{**ORDER, 9: {1: 2, 2: 3, 3: 4, 4: 1_000_001}}]},
        {**FIELDS, 5: [{**ORDER, 9: {1: 2, 2: 3, 3: 4, 4: 0.5}}]},
        {**FIELDS, 5: [{**ORDER, 9: {1: 2, 2: 0, 3: 4, 4: 5}}]},
        {**FIELDS, 5: [{**ORDER, 9: {1: 2, 2: 3, 3: 2**30, 4: 5}}]},
        {**FIELDS, 5: [{**ORDER, 9: {1: 2, 2: 3, 3: 4, 5: False}}]},
        {**FIELDS, 5: [{**ORDER, 9: {1: 2, 2: 3, 3: 4, 5: True, 7: "/bin/sh"}}]},
        {**FIELDS, 5: [{**ORDER, 9: {1: 2, 2: 3, 3: 4, 5: True, 7: b"x"}}]},
        {**FIELDS, 5: [{**ORDER, 10: [0, 0, 60]}]},
        {**FIELDS, 5: [{**ORDER, 10: [128, 0, 60]}]},
        {**FIELDS, 5: [{**ORDER, 10: [1, 60, 60]}]},
        {**FIELDS, 5: [{**ORDER, 10: [1, 1440, 60]}]},
        {**FIELDS, 5: [{**ORDER, 10: [1, 0, 1441]}]},
        {**FIELDS, 5: [{**ORDER, 10: [1, -1, 60]}]},
        {**FIELDS, 5: [{**ORDER, 10: [True, 0, 60]}]},
        {**FIELDS, 5: [{**ORDER, 10: [1, 0]}]},
        {**FIELDS, 5: [{**ORDER, 10: "mon 00:00-01:00"}]},
        {**FIELDS, 5: [{**ORDER, 11: "soft"}]},
        {**FIELDS, 5: [{**ORDER, 11: 1}]},
        {**FIELDS, 5: [{**ORDER, 11: "brutal"}]},
        {**FIELDS, 5: [{**ORDER, 10: [1, 0, 60], 11: "forced"}]},
        {**FIELDS, 6: {}},
        {**FIELDS, 6: [1]},
        {**FIELDS, 6: {4: 0}},
        {**FIELDS, 6: {4: 100_001}},
        {**FIELDS, 6: {4: True}},
        {**FIELDS, 6: {5: 1}},
        {**FIELDS, 6: {1: "loud"}},
        {**FIELDS, 6: {1: ["debug"]}},
        {**FIELDS, 6: {1: None}},
        {**FIELDS, 6: {2: False}},
        {**FIELDS, 6: {2: 1}},
        {**FIELDS, 6: {3: "../etc"}},
        {**FIELDS, 6: {3: b"d-1"}},
    ],
)
def test_a_payload_of_another_form_is_refused(fields: object) -> None:
    with pytest.raises(InvalidAssignment):
        decode_assignment(cbor2.dumps(fields))


GOOD = Assignment("cam-1", 8, 1000, 2000, ())


def test_a_device_accepts_what_is_for_it_new_and_in_time() -> None:
    check_acceptable(GOOD, device_id="cam-1", last_sequence=7, now_s=1000.0)
    check_acceptable(GOOD, device_id="cam-1", last_sequence=0, now_s=1999.9)
    check_acceptable(GOOD, device_id="cam-1", last_sequence=7, now_s=1000.0 - CLOCK_TOLERANCE_S)


@pytest.mark.parametrize(
    ("device_id", "last_sequence", "now_s", "error"),
    [
        ("cam-2", 7, 1500.0, AssignmentForOtherDevice),
        ("cam-1", 8, 1500.0, AssignmentReplayed),
        ("cam-1", 9, 1500.0, AssignmentReplayed),
        ("cam-1", 7, 2000.0, AssignmentExpired),
        ("cam-1", 7, 999.0 - CLOCK_TOLERANCE_S, AssignmentExpired),
    ],
)
def test_a_device_refuses_anything_else(
    device_id: str, last_sequence: int, now_s: float, error: type[Exception]
) -> None:
    with pytest.raises(error):
        check_acceptable(GOOD, device_id=device_id, last_sequence=last_sequence, now_s=now_s)


def test_director_keys_are_found_by_their_id() -> None:
    keys = DirectorKeys(keys=(PUBLIC.hex(),))
    assert decode_director_keys(encode_director_keys(keys)).by_id() == {key_id(PUBLIC): PUBLIC}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"keys": []}',
        b'{"keys": ["00"]}',
        b"\xff",
        b'{"keys": ["' + b"A" * 64 + b'"]}',
        b'{"keys": ["' + b"0" * 64 + b'\\n"]}',
    ],
)
def test_what_are_not_director_keys_is_refused(data: bytes) -> None:
    with pytest.raises(MetadataRejected):
        decode_director_keys(data)
