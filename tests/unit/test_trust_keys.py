"""The hub's keys and the director's signatures."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fleet.protocol import cose
from fleet.protocol.assignment import EXTERNAL_AAD, Assignment, ModelOrder, decode_assignment
from fleet.protocol.errors import InvalidConfiguration, MessageTooLarge, NotFound
from hub.trust.director import Director
from hub.trust.keys import KeyFolder, KeyRole, raw_public_key


def test_keys_are_made_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    assert folder.create_missing() == tuple(KeyRole)
    before = {path.name: path.read_bytes() for path in (tmp_path / "keys").iterdir()}
    assert sorted(before) == sorted(f"{role.value}.pem" for role in KeyRole)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (tmp_path / "keys").iterdir())
    assert folder.create_missing() == ()
    assert {path.name: path.read_bytes() for path in (tmp_path / "keys").iterdir()} == before
    assert len({raw_public_key(folder.load(role)) for role in KeyRole}) == len(KeyRole)


def test_a_key_that_was_taken_offline_is_made_anew_only_on_request(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    folder.create_missing()
    (tmp_path / "root.pem").unlink()
    with pytest.raises(NotFound, match="root"):
        folder.load(KeyRole.ROOT)
    assert folder.load(KeyRole.TARGETS) is not None


@pytest.mark.parametrize(
    "contents", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "root.pem"
    path.write_bytes(contents)
    path.chmod(0o600)
    with pytest.raises(InvalidConfiguration):
        KeyFolder(tmp_path).load(KeyRole.ROOT)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    folder.create_missing()
    (tmp_path / "root.pem").chmod(0o644)
    with pytest.raises(InvalidConfiguration, match="chmod"):
        folder.load(KeyRole.ROOT)


def _order(number: int) -> ModelOrder:
    return ModelOrder(f"model-{number}", 1, bytes(32), "onnx-int8", "r1-0")


def test_the_director_signs_what_a_device_can_verify() -> None:
    director = Director(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    assignment = Assignment("cam-1", 3, 10, 20, (_order(0),))
    envelope = cose.open1(director.sign(assignment), external_aad=EXTERNAL_AAD)
    assert envelope.key_id == cose.key_id(director.public_key)
    verifier = Ed25519PublicKey.from_public_bytes(director.public_key)
    verifier.verify(envelope.signature, envelope.signed)
    assert decode_assignment(envelope.payload) == assignment
    other_purpose = cose.open1(director.sign(assignment), external_aad=b"another purpose")
    with pytest.raises(InvalidSignature):
        verifier.verify(other_purpose.signature, other_purpose.signed)


def test_an_assignment_that_no_device_would_accept_is_not_signed() -> None:
    director = Director(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    with pytest.raises(MessageTooLarge):
        director.sign(Assignment("cam-1", 1, 10, 20, tuple(_order(i) for i in range(400))))
