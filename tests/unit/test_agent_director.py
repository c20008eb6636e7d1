"""Which assignments a device accepts, and what it remembers of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent.trust.director import ACCEPTED_FILE, Director, read_sequence
from fleet.protocol import cose
from fleet.protocol.assignment import MAX_ASSIGNMENT_SIZE_BYTES, Assignment, ModelOrder, encode_assignment
from fleet.protocol.director import DirectorKeys
from fleet.protocol.errors import (
    AssignmentExpired,
    AssignmentForOtherDevice,
    AssignmentReplayed,
    InvalidAssignment,
    MessageTooLarge,
    MusterError,
    SignatureInvalid,
    StorageCorrupt,
)
from tests.support.agent_repository import DirectorKey

NOW_S = 1_000_000
KEY, STRANGER = DirectorKey(), DirectorKey()


def assignment(sequence: int = 5, device_id: str = "dev-1", expires_at_s: int = NOW_S + 60) -> Assignment:
    order = ModelOrder("digits", 1, bytes(32), "onnx-fp32", "d-1")
    return Assignment(device_id, sequence, NOW_S, expires_at_s, (order,))


def director(folder: Path) -> Director:
    made = Director(folder, "dev-1")
    made.load()
    made.trust(DirectorKeys((KEY.public.hex(),)))
    return made


def test_an_accepted_assignment_is_remembered_and_verified_again(tmp_path: Path) -> None:
    first = director(tmp_path)
    assert first.accept(KEY.sign(assignment()), now_s=NOW_S) == assignment()
    again = Director(tmp_path, "dev-1")
    assert again.load() == assignment()
    assert again.sequence == 5 == read_sequence(tmp_path)
    with pytest.raises(AssignmentReplayed):
        again.accept(KEY.sign(assignment()), now_s=NOW_S)


def flipped(at: int) -> bytes:
    message = bytearray(KEY.sign(assignment()))
    message[at] ^= 1
    return bytes(message)


def signed_for_something_else() -> bytes:
    payload = encode_assignment(assignment())
    return cose.sign1(
        payload,
        signer_key_id=cose.key_id(KEY.public),
        external_aad=b"another-purpose",
        sign=KEY.private.sign,
    )


REFUSED: dict[str, tuple[Callable[[], bytes], type[MusterError]]] = {
    "for another device": (lambda: KEY.sign(assignment(device_id="dev-2")), AssignmentForOtherDevice),
    "expired": (lambda: KEY.sign(assignment(expires_at_s=NOW_S)), AssignmentExpired),
    "old": (lambda: KEY.sign(assignment(sequence=0)), AssignmentReplayed),
    "of a stranger": (lambda: STRANGER.sign(assignment()), SignatureInvalid),
    "tampered": (lambda: flipped(-100), SignatureInvalid),
    "with another signature": (lambda: flipped(-1), SignatureInvalid),
    "signed for something else": (signed_for_something_else, SignatureInvalid),
    "truncated": (lambda: KEY.sign(assignment())[:-10], SignatureInvalid),
    "empty": (lambda: b"", SignatureInvalid),
    "too large": (lambda: bytes(MAX_ASSIGNMENT_SIZE_BYTES + 1), MessageTooLarge),
    "without a sense": (
        lambda: cose.sign1(
            b"\x00",
            signer_key_id=cose.key_id(KEY.public),
            external_aad=b"muster-assignment-v1",
            sign=KEY.private.sign,
        ),
        InvalidAssignment,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_must_not_be_accepted_changes_nothing(tmp_path: Path, name: str) -> None:
    make, error = REFUSED[name]
    device = director(tmp_path)
    with pytest.raises(error):
        device.accept(make(), now_s=NOW_S)
    assert device.sequence == 0
    assert not (tmp_path / ACCEPTED_FILE).exists()


def test_every_single_flipped_bit_is_refused(tmp_path: Path) -> None:
    device, message = director(tmp_path), KEY.sign(assignment())
    for position in range(len(message)):
        for bit in range(0, 8, 3):
            spoiled = bytearray(message)
            spoiled[position] ^= 1 << bit
            with pytest.raises(MusterError):
                device.accept(bytes(spoiled), now_s=NOW_S)
    assert device.sequence == 0


def test_a_replaced_key_no_longer_counts(tmp_path: Path) -> None:
    device = director(tmp_path)
    device.trust(DirectorKeys((STRANGER.public.hex(),)))
    assert not device.knows_signer(KEY.sign(assignment()))
    with pytest.raises(SignatureInvalid):
        device.accept(KEY.sign(assignment()), now_s=NOW_S)
    assert device.accept(STRANGER.sign(assignment()), now_s=NOW_S)


def test_the_sequence_outlives_the_key(tmp_path: Path) -> None:
    device = director(tmp_path)
    device.accept(KEY.sign(assignment(sequence=9)), now_s=NOW_S)
    device.trust(DirectorKeys((STRANGER.public.hex(),)))
    again = Director(tmp_path, "dev-1")
    with pytest.raises(SignatureInvalid):
        again.load()
    with pytest.raises(AssignmentReplayed):
        again.accept(STRANGER.sign(assignment(sequence=9)), now_s=NOW_S)


def test_a_damaged_memory_refuses_everything(tmp_path: Path) -> None:
    director(tmp_path).accept(KEY.sign(assignment()), now_s=NOW_S)
    (tmp_path / ACCEPTED_FILE).write_bytes(b"\xc1damaged")
    again = Director(tmp_path, "dev-1")
    with pytest.raises(StorageCorrupt):
        again.load()
    with pytest.raises(StorageCorrupt):
        again.accept(KEY.sign(assignment(sequence=99)), now_s=NOW_S)


def test_the_stored_message_is_the_signed_one(tmp_path: Path) -> None:
    device, message = director(tmp_path), KEY.sign(assignment())
    device.accept(message, now_s=NOW_S)
    stored = msgspec.msgpack.decode((tmp_path / ACCEPTED_FILE).read_bytes())
    assert stored["message"] == message
    assert device.is_last(message)
