"""Attacks and accidents on what a device is sent: each is refused, told of, and survived.

Every device here answers with a version that it verified before, and must answer with it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fleet.protocol.chunks import CHUNK_SIZE_BYTES
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.manifest import MANIFEST_FORMAT
from fleet.protocol.requirement import RuntimeVersion
from fleet.protocol.topics import Down, chunk
from tests.support.agent_bundles import TFLITE_VARIANT, Bundle, build
from tests.support.agent_device import Device
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
    settle,
)
from tests.support.agent_peer import Peer
from tests.support.agent_repository import DirectorKey

ONE, TWO, BIG = build(1), build(2), build(3, padding_bytes=3 * CHUNK_SIZE_BYTES)


@pytest.fixture(name="device")
def device_fixture(peer: Peer, make_device: MakeDevice) -> Device:
    """A device that answers with version 1."""
    device = make_device()
    settle(peer, device, ONE)
    return device


def still_well(peer: Peer, device: Device) -> None:
    """Check that a device answers with version 1 and can still be updated."""
    assert device.answering_version() == "1"
    peer.alter_chunk = lambda _sha, _number, data: data
    peer.alter_file = lambda _path, data: data
    peer.release(TWO)
    peer.assign(device.id, (TWO, "d-well"))
    peer.wait_report("d-well", S.SUCCEEDED)
    assert device.answering_version() == "2"


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_a_chunk_tampered_once_is_fetched_again(peer: Peer, device: Device) -> None:
    spoiled: list[int] = []

    def once(sha256: str, number: int, data: bytes) -> bytes:
        if sha256 == BIG.model_blob and number == 1 and not spoiled:
            spoiled.append(number)
            return flip(data)
        return data

    peer.alter_chunk = once
    peer.release(BIG)
    peer.assign(device.id, (BIG, "d-2"))
    peer.wait_report("d-2", S.SUCCEEDED)
    assert spoiled == [1], "chunk 1 never came by, so nothing was tampered with"
    assert peer.wait_incident("digest_mismatch")


def test_a_blob_that_stays_tampered_fails_with_its_cause(peer: Peer, device: Device) -> None:
    peer.alter_chunk = lambda sha256, _number, data: flip(data) if sha256 == BIG.model_blob else data
    peer.release(BIG)
    peer.assign(device.id, (BIG, "d-2"))
    end = peer.wait_end("d-2")
    assert end.state is S.FAILED
    assert end.cause is not None
    assert end.cause.code == "digest_mismatch"
    assert not any(path.name.startswith(BIG.model_blob) for path in (device.state / "blobs").iterdir())
    still_well(peer, device)


def test_chunks_of_a_wrong_size_or_that_nobody_wants_are_ignored(peer: Peer, device: Device) -> None:
    peer.alter_chunk = lambda sha256, number, data: (
        data + b"x" if (sha256, number) == (BIG.model_blob, 0) else data
    )
    peer.release(BIG)
    peer.publish(chunk("0" * 64, 0), b"nobody wants this")
    peer.publish(chunk(BIG.model_blob, 0), b"")
    device.restart_with(delivery_attempts=4)
    device.wait_version(1)
    peer.assign(device.id, (BIG, "d-2"))
    end = peer.wait_end("d-2")
    assert end.cause is not None
    assert end.cause.code == "delivery_timed_out"
    assert peer.wait_incident("invalid_message")
    still_well(peer, device)


def altered_manifest(peer: Peer) -> Bundle:
    """The repository sends another manifest than its metadata says."""
    peer.release(TWO)
    peer.alter_file = lambda path, data: flip(data) if data and path.startswith("targets/digits") else data
    return TWO


def truncated_manifest(peer: Peer) -> Bundle:
    peer.release(TWO)
    peer.alter_file = lambda path, data: data[:-9] if data and path.startswith("targets/digits") else data
    return TWO


def unreleased_version(peer: Peer) -> Bundle:
    """The director assigns what the image repository never released: a stolen director key."""
    peer.blobs.update(TWO.blobs)
    return TWO


def other_bundle(peer: Peer) -> Bundle:
    """The director names another manifest under a released version's number."""
    peer.release(TWO)
    return build(2, padding_bytes=10)


def tampered_metadata(peer: Peer) -> Bundle:
    peer.release(TWO)
    peer.alter_file = lambda path, data: (
        data.replace(b'"digits/2.json"', b'"digits/9.json"')
        if data and path.endswith(".targets.json")
        else data
    )
    return TWO


def expired_metadata(peer: Peer) -> Bundle:
    peer.release(TWO)
    peer.repository.publish(expires=datetime.now(UTC) - timedelta(days=1))
    return TWO


def rolled_back_metadata(peer: Peer) -> Bundle:
    """The repository sends the timestamp of before: the new version is hidden, or revoked ones come back."""
    before = peer.repository.files["metadata/timestamp.json"]
    peer.release(TWO)
    peer.repository.publish()
    peer.alter_file = lambda path, data: before if path.endswith("timestamp.json") else data
    return TWO


def missing_metadata(peer: Peer) -> Bundle:
    peer.release(TWO)
    peer.alter_file = lambda path, data: None if path.endswith(".snapshot.json") else data
    return TWO


def endless_metadata(peer: Peer) -> Bundle:
    peer.release(TWO)
    peer.alter_file = lambda path, data: b" " * 2_000_000 if path.endswith("timestamp.json") else data
    return TWO


class WithoutContents(Bundle):
    """A bundle whose manifest has no more than a format."""

    @property
    def data(self) -> bytes:
        return msgspec.json.encode({"format": MANIFEST_FORMAT})


def wrong_contents(peer: Peer) -> Bundle:
    """A released manifest whose contents are none."""
    bundle = WithoutContents(TWO.manifest, TWO.blobs)
    peer.release(bundle)
    return bundle


def too_new_runtime(peer: Peer) -> Bundle:
    bundle = build(2).requiring(runtimes=(RuntimeVersion("onnxruntime", "99.0"),))
    peer.release(bundle)
    return bundle


def other_runtime(peer: Peer) -> Bundle:
    """TensorFlow Lite for tflite-runtime alone, which gives way to LiteRT here."""
    only = (RuntimeVersion("tflite-runtime", "2.14"),)
    bundle = build(2).ordering(TFLITE_VARIANT).requiring(runtimes=only)
    peer.release(bundle)
    return bundle


def other_architecture(peer: Peer) -> Bundle:
    bundle = build(2).requiring(architectures=("abacus",))
    peer.release(bundle)
    return bundle


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (altered_manifest, "digest_mismatch"),
        (truncated_manifest, "digest_mismatch"),
        (unreleased_version, "metadata_rejected"),
        (other_bundle, "digest_mismatch"),
        (tampered_metadata, "metadata_rejected"),
        (expired_metadata, "metadata_rejected"),
        (rolled_back_metadata, "metadata_rejected"),
        (missing_metadata, "metadata_rejected"),
        (endless_metadata, "metadata_rejected"),
        (wrong_contents, "invalid_manifest"),
        (too_new_runtime, "variant_unsupported"),
        (other_runtime, "variant_unsupported"),
        (other_architecture, "variant_unsupported"),
    ],
)
def test_an_order_that_cannot_be_trusted_is_rejected(
    peer: Peer, device: Device, attack: Callable[[Peer], Bundle], code: str
) -> None:
    bundle = attack(peer)
    peer.wants.clear()
    peer.assign(device.id, (bundle, "d-2"))
    end = peer.wait_end("d-2")
    assert end.state is S.REJECTED
    assert end.cause is not None
    assert end.cause.code == code
    assert peer.wants == [], "blobs were asked for before the manifest was trusted"
    assert device.answering_version() == "1"
    assert peer.wait_running(1, "REJECTED")


def test_assignments_that_must_not_be_accepted(peer: Peer, device: Device) -> None:
    peer.release(TWO)
    key = peer.repository.director
    good = peer.assignment(device.id, (TWO, "d-2"))

    def send(message: bytes, code: str) -> None:
        peer.send(device.id, Down.ASSIGNMENT, message)
        assert peer.wait_incident(code)

    send(key.sign(peer.assignment("another-device", (TWO, "d-2"))), "assignment_for_other_device")
    send(key.sign(peer.assignment(device.id, (TWO, "d-2"), expires_in_s=-1)), "assignment_expired")
    send(key.sign(peer.assignment(device.id, (TWO, "d-2"), sequence=1)), "assignment_replayed")
    send(key.sign(good)[:-20], "signature_invalid")
    send(bytes(20_000), "message_too_large")
    peer.send(device.id, Down.ASSIGNMENT, DirectorKey().sign(good))
    peer.send(device.id, Down.ASSIGNMENT, flip(key.sign(good)))
    peer.send(device.id, Down.ACK, b"\xc1")
    assert peer.wait_incident("invalid_message")
    assert peer.reports("d-2") == []
    still_well(peer, device)


def test_a_new_director_key_is_learnt_and_the_old_one_forgotten(peer: Peer, device: Device) -> None:
    peer.release(TWO)
    old, new = peer.repository.director, DirectorKey()
    peer.repository.trust(new)
    peer.assign(device.id, (TWO, "d-2"), key=new)
    peer.wait_report("d-2", S.SUCCEEDED)
    peer.send(device.id, Down.ASSIGNMENT, old.sign(peer.assignment(device.id, (ONE, "d-3"))))
    assert peer.wait_incident("signature_invalid")
    assert device.answering_version() == "2"


def test_a_failing_self_test_never_answers(peer: Peer, device: Device) -> None:
    wrong = build(2, golden_error=0.5)
    peer.release(wrong)
    peer.assign(device.id, (wrong, "d-2"))
    end = peer.wait_end("d-2")
    assert end.state is S.FAILED
    assert end.cause is not None
    assert end.cause.code == "self_test_failed"
    assert S.TRIAL not in [report.state for report in peer.reports("d-2")]
    assert device.answering_version() == "1"
