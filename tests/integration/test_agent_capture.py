"""Capturing samples on a real agent: the owner's word, the policy, redaction by a program, what is lost."""

from __future__ import annotations

import stat
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.capture.spool import SPOOL_FILE
from fleet.protocol.capture import MILLION, CapturePolicy
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.samples import Reason, Sample, array_of
from fleet.protocol.topics import Up
from tests.support.agent_bundles import build, expected_class
from tests.support.agent_device import SAMPLE, Device
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.waiting import eventually

ONE = build(1)
ALL = CapturePolicy(2**40, bytes_per_day=10**6, sample_bytes=1000, random_share=MILLION)
ALLOWED: dict[str, Any] = {"allow_sample_capture": True}

REDACTION = """
import json, sys
head = json.loads(sys.stdin.buffer.readline())
data = bytearray(sys.stdin.buffer.read())
data[0:4] = bytes(4)  # the first pixel must not leave the device
sys.stdout.buffer.write(json.dumps(head).encode() + b"\\n" + data)
"""


def program(folder: Path, text: str, name: str = "redact") -> list[str]:
    """Write a program and return its command."""
    file = folder / f"{name}.py"
    file.write_text(text)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return [sys.executable, str(file)]


def answering(peer: Peer, device: Device, policy: CapturePolicy | None = ALL) -> Device:
    """Start a device, let it run a version, and order it to capture."""
    peer.release(ONE)
    peer.assign(device.id, (ONE, "d-1"), capture=policy)
    device.start()
    peer.wait_report("d-1", S.SUCCEEDED)
    device.wait_version(1)
    return device


def pixels(sample: Sample) -> list[float]:
    """Return the numbers that the model was given."""
    values: list[float] = array_of(sample.inputs[0]).ravel().tolist()
    return values


def given(peer: Peer) -> list[list[float]]:
    """Return the inputs of all samples that came, rounded."""
    return [[round(value, 3) for value in pixels(message.sample)] for message in peer.samples]


def test_an_uncertain_input_comes_with_what_the_model_said(peer: Peer, make_device: MakeDevice) -> None:
    policy = CapturePolicy(2**40, 10**6, 1000, uncertain_below=MILLION)
    device = answering(peer, make_device(**ALLOWED), policy)
    assert eventually(lambda: peer.hellos and peer.hellos[-1].capabilities.captures_samples)
    asked_s = time.time()
    probabilities = device.infer(SAMPLE).body["outputs"][0]["data"]
    (message, *_) = eventually(lambda: [m for m in peer.samples if m.sample.at_s >= asked_s])
    sample = message.sample
    assert (sample.model, sample.version, sample.manifest_sha256) == ("digits", 1, ONE.sha256)
    assert (sample.reason, sample.redaction) == (Reason.UNCERTAIN, None)
    assert pixels(sample) == pytest.approx(SAMPLE)
    assert sample.category == expected_class(1, SAMPLE)
    assert sample.confidence == pytest.approx(max(probabilities))
    assert sample.answer == pytest.approx(probabilities)


def test_what_the_owner_does_not_allow_is_not_captured_whatever_is_ordered(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = answering(peer, make_device())
    assert not peer.hellos[-1].capabilities.captures_samples
    assert device.infer(SAMPLE).status == 200
    eventually(lambda: sum(window.predictions for window in peer.windows()) >= 1, "the answer was counted")
    assert peer.samples == []
    assert not (device.state / SPOOL_FILE).exists()


def test_a_sample_survives_a_kill_and_goes_when_the_owner_says_no(
    peer: Peer, make_device: MakeDevice
) -> None:
    peer.silent.add(Up.SAMPLE)
    device = answering(peer, make_device(**ALLOWED))
    device.infer(SAMPLE)
    eventually((device.state / SPOOL_FILE).exists, "it is kept")
    eventually(lambda: spooled(device) > 0, "it is in the spool")
    device.kill()
    peer.silent.clear()
    device.start()
    eventually(lambda: [0.9, 0.1, 0.4, 0.2] in given(peer), "it comes after the kill")
    eventually(lambda: spooled(device) == 0, "it is forgotten when the hub has it")
    numbers = [message.number for message in peer.samples]
    assert len(numbers) == len(set(numbers))

    peer.silent.add(Up.SAMPLE)
    device.wait_version(1)
    device.infer(SAMPLE)
    eventually(lambda: spooled(device) > 0)
    device.restart_with(allow_sample_capture=False)
    eventually(lambda: not list(device.state.glob(f"{SPOOL_FILE}*")), "nothing is left of it")


def test_a_damaged_spool_is_told_and_put_aside_and_samples_go_on(peer: Peer, make_device: MakeDevice) -> None:
    device = answering(peer, make_device(**ALLOWED))
    eventually(lambda: SAMPLE in given(peer))
    device.stop()
    peer.renew()
    for file in device.state.glob(f"{SPOOL_FILE}*"):
        file.unlink()
    (device.state / SPOOL_FILE).write_bytes(b"no database " * 1000)
    peer.samples.clear()
    device.start()
    assert "spool of samples" in peer.wait_incident("storage_corrupt").cause.detail
    device.wait_version(1)
    eventually(lambda: SAMPLE in given(peer), "samples come again")
    assert (device.state / f"{SPOOL_FILE}.damaged").exists()


def spooled(device: Device) -> int:
    """Return how many samples are in a device's spool."""
    import sqlite3

    with sqlite3.connect(f"file:{device.state / SPOOL_FILE}?mode=ro", uri=True) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM sample").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def test_a_policy_that_is_taken_back_takes_what_waits_with_it(peer: Peer, make_device: MakeDevice) -> None:
    peer.silent.add(Up.SAMPLE)
    device = answering(peer, make_device(**ALLOWED))
    device.infer(SAMPLE)
    eventually(lambda: (device.state / SPOOL_FILE).exists() and spooled(device) > 0)
    peer.assign(device.id, (ONE, "d-1"))
    eventually(lambda: spooled(device) == 0, "nothing waits any more")
    device.infer(SAMPLE)
    assert spooled(device) == 0
    assert peer.samples == []


def test_samples_go_through_the_owners_program(peer: Peer, make_device: MakeDevice, tmp_path: Path) -> None:
    redaction = {"sample_redaction": "first", "sample_redaction_command": program(tmp_path, REDACTION)}
    device = answering(peer, make_device(**ALLOWED, **redaction))
    device.infer(SAMPLE)
    eventually(lambda: [0.0, 0.1, 0.4, 0.2] in given(peer), "it comes redacted")
    assert all(sample[0] == 0.0 for sample in given(peer))
    assert {message.sample.redaction for message in peer.samples} == {"first"}


def test_what_waits_unredacted_never_leaves_once_redaction_is_wanted(
    peer: Peer, make_device: MakeDevice, tmp_path: Path
) -> None:
    peer.silent.add(Up.SAMPLE)
    device = answering(peer, make_device(**ALLOWED))
    device.infer(SAMPLE)
    eventually(lambda: (device.state / SPOOL_FILE).exists() and spooled(device) > 0)
    required = msgspec.structs.replace(ALL, redaction="first")
    peer.assign(device.id, (ONE, "d-1"), capture=required)
    eventually(lambda: spooled(device) == 0, "the order takes it")

    peer.assign(device.id, (ONE, "d-1"), capture=ALL)
    eventually(lambda: device.infer(SAMPLE) and spooled(device) > 0, "without the requirement it is kept")
    device.stop()
    peer.renew()
    peer.samples.clear()
    peer.silent.clear()
    device.restart_with(
        sample_redaction="first", sample_redaction_command=program(tmp_path, REDACTION)
    )  # the owner's word takes it as well
    device.wait_version(1)
    eventually(lambda: device.infer(SAMPLE) and peer.samples, "samples come")
    assert all(pixels(message.sample)[0] == 0.0 for message in peer.samples)


@pytest.mark.parametrize(
    "text",
    ["raise SystemExit(3)", "import time; time.sleep(60)"],
    ids=["fails", "hangs"],
)
def test_a_sample_whose_redaction_fails_is_dropped_and_answers_go_on(
    peer: Peer, make_device: MakeDevice, tmp_path: Path, text: str
) -> None:
    redaction = {
        "sample_redaction": "first",
        "sample_redaction_command": program(tmp_path, text),
        "sample_redaction_timeout_s": 0.5,
    }
    device = answering(peer, make_device(**ALLOWED, **redaction))
    assert device.infer(SAMPLE).status == 200
    eventually(
        lambda: any(
            getattr(record.body, "cause", None) and "edaction" in record.body.cause.detail  # type: ignore[union-attr]
            for record in peer.records
        ),
        "the failure is told",
    )
    assert peer.samples == []
    assert device.infer(SAMPLE).status == 200
    eventually(lambda: dropped(peer).get("redaction_failed", 0) > 0, "it is counted")


def dropped(peer: Peer) -> dict[str, int]:
    """Return what the device said last of samples that it dropped."""
    counts = peer.states[-1].samples
    return {} if isinstance(counts, msgspec.UnsetType) else counts.dropped


def test_a_required_redaction_that_the_device_lacks_means_no_samples(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = answering(peer, make_device(**ALLOWED), msgspec.structs.replace(ALL, redaction="faces"))
    device.infer(SAMPLE)
    eventually(lambda: dropped(peer).get("redaction_missing", 0) > 0, "it is counted")
    peer.assign(device.id, (ONE, "d-1"), capture=ALL)  # so it is the redaction alone that was missing
    asked = np.round(np.random.default_rng(1).random(4), 3).tolist()

    def captured() -> bool:
        device.infer(asked)
        return asked in given(peer)

    eventually(captured, "without it there are samples")
    assert SAMPLE not in given(peer)
