"""Noise on counts on the device: nothing exact is sent from when on owner or operator wants it so."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.hosting.host import Host
from agent.hosting.hosted import Hosted
from agent.settings import parse_settings
from agent.telemetry.noise import WORD_FILE, CountNoise
from agent.telemetry.outbox import Outbox
from fleet.privacy.noise import LEAST_EPSILON, variance
from fleet.privacy.windows import numbers_of, sensitivity
from fleet.protocol.errors import Cause, InvalidAssignment, InvalidConfiguration
from fleet.protocol.noised import NoisedWindow
from fleet.protocol.records import Incident, RecordBody, ShadowReport, TelemetryWindow
from fleet.protocol.wishes import Wishes, read_wishes, wishes_fields
from tests.support.agent_bundles import build, load_bundle
from tests.support.agent_models import PIXELS

GOOD = np.full((1, PIXELS), 0.5, dtype=np.float32)
FEATURES = len(build(1).manifest.reference.features)
INCIDENT = Incident(1.0, Cause("no_space", "The disk is full."))
SHADOW = ShadowReport(1.0, 2.0, "d-1", "digits", 1, 2, "ab" * 32, compared=9)


def draw(size: int) -> bytes:
    """Return chance of which no test depends on what it says."""
    draw.number += 1  # type: ignore[attr-defined]
    return hashlib.shake_256(str(draw.number).encode()).digest(size)  # type: ignore[attr-defined]


draw.number = 0  # type: ignore[attr-defined]


@pytest.fixture(name="outbox")
def outbox_fixture(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "outbox", 10**6)
    yield outbox
    outbox.close()


@pytest.fixture(name="hosted")
def hosted_fixture(tmp_path: Path) -> Iterator[Hosted]:
    hosted = asyncio.run(load_bundle(build(1), tmp_path))
    yield hosted
    hosted.close()


def bodies(outbox: Outbox) -> list[RecordBody]:
    return [outbox.record(entry).body for entry in outbox.take(10**6, beside=set())]


def exact_window() -> TelemetryWindow:
    return TelemetryWindow(1.0, 2.0, "digits", 1, "ab" * 32, "onnx-fp32", predictions=7)


def test_with_noise_there_is_a_window_of_every_feature_whatever_happened(
    outbox: Outbox, hosted: Hosted
) -> None:
    host = Host()
    CountNoise(2.0, host, outbox, draw)
    host.put("digits", hosted)
    for answers in (0, 3):
        for _ in range(answers):
            hosted.infer_now({"pixels": GOOD})
        (window,) = host.close_windows(5.0)
        assert window.predictions == answers
        outbox.put(window)
    told = bodies(outbox)
    assert len(told) == 2
    for body in told:
        assert isinstance(body, NoisedWindow)
        assert body.epsilon == 2.0
        assert body.variance == pytest.approx(variance(sensitivity(FEATURES) / 2.0))
        assert len(numbers_of(body)) == FEATURES


def test_what_is_sent_again_is_the_same(outbox: Outbox) -> None:
    CountNoise(1.0, Host(), outbox, draw)
    outbox.put(exact_window())
    once = outbox.take(9, beside=set())
    assert outbox.take(9, beside=set()) == once


def test_shadows_are_left_out_and_what_counts_no_inferences_is_not(outbox: Outbox) -> None:
    CountNoise(1.0, Host(), outbox, draw)
    outbox.put(SHADOW, INCIDENT)
    assert bodies(outbox) == [INCIDENT]


def test_exact_counts_that_wait_are_given_up_when_noise_comes_into_force(
    outbox: Outbox, hosted: Hosted
) -> None:
    host = Host()
    noise = CountNoise(0.0, host, outbox, draw)
    host.put("digits", hosted)
    outbox.put(exact_window(), SHADOW, INCIDENT)
    hosted.infer_now({"pixels": GOOD})
    noise.hear_hub(500, lambda: pytest.fail("what was counted exactly is not kept"))
    assert noise.epsilon == 0.5
    assert bodies(outbox) == [INCIDENT]
    (window,) = host.close_windows(5.0)
    assert window.predictions == 0


def test_a_full_outbox_adds_noised_windows_up(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "small", 900)
    CountNoise(1.0, Host(), outbox, draw)
    for _ in range(30):
        outbox.put(exact_window())
    told = [body for body in bodies(outbox) if isinstance(body, NoisedWindow)]
    assert sum(body.variance for body in told) == pytest.approx(30 * variance(sensitivity(0)))
    assert len(told) < 30
    assert {body.epsilon for body in told} == {1.0}
    outbox.close()


def test_who_asks_for_more_privacy_wins(outbox: Outbox) -> None:
    kept: list[float] = []
    noise = CountNoise(1.0, Host(), outbox, draw)

    def keep() -> None:
        kept.append(noise.epsilon)

    for thousandths, in_force in [(5000, 1.0), (200, 0.2), (None, 1.0)]:
        noise.hear_hub(thousandths, keep)
        assert noise.epsilon == in_force
    assert kept == [1.0, 0.2]  # what was counted under a word is told by it


def test_the_word_of_the_operator_holds_before_the_last_assignment_is_verified(
    outbox: Outbox, tmp_path: Path
) -> None:
    word = tmp_path / WORD_FILE
    CountNoise(0.0, Host(), outbox, draw, word=word).hear_hub(500, lambda: None)
    again = CountNoise(0.0, Host(), outbox, draw, word=word)
    assert again.epsilon == 0.5
    outbox.put(exact_window())
    assert all(isinstance(body, NoisedWindow) for body in bodies(outbox))
    again.hear_hub(None, lambda: None)
    assert not word.exists()
    assert CountNoise(0.0, Host(), outbox, draw, word=word).epsilon == 0.0


@pytest.mark.parametrize("kept", [b"", b"-5", b"0", b"\xb2", b"9" * 500, b"nonsense"])
def test_a_word_that_cannot_be_read_stands_for_the_most_noise(
    outbox: Outbox, tmp_path: Path, kept: bytes
) -> None:
    word = tmp_path / WORD_FILE
    word.write_bytes(kept)
    assert CountNoise(0.0, Host(), outbox, draw, word=word).epsilon == LEAST_EPSILON


def test_taken_back_counts_are_exact_again(outbox: Outbox, hosted: Hosted) -> None:
    host = Host()
    noise = CountNoise(0.0, host, outbox, draw)
    host.put("digits", hosted)
    noise.hear_hub(1000, lambda: None)
    hosted.infer_now({"pixels": GOOD})
    noise.hear_hub(None, lambda: outbox.put(*host.close_windows(5.0)))
    hosted.infer_now({"pixels": GOOD})
    outbox.put(*host.close_windows(6.0))
    under_noise, exact = bodies(outbox)
    assert isinstance(under_noise, NoisedWindow)
    assert isinstance(exact, TelemetryWindow)
    assert exact.predictions == 1
    assert not host.close_windows(7.0)


def test_late_labels_make_no_window_of_their_own(outbox: Outbox, hosted: Hosted) -> None:
    host = Host()
    CountNoise(1.0, host, outbox, draw)
    host.put("digits", hosted)
    host.put("digits", None)
    assert len(host.close_windows(5.0)) == 1
    host.count_labels(hosted.counter, [True], [0.7])
    assert host.close_windows(6.0) == []


def test_a_wish_for_noise_travels_and_nonsense_does_not() -> None:
    wish = Wishes(count_noise=250)
    assert read_wishes(wishes_fields(wish)) == wish
    for nonsense in (0, -1, 100_001, 1.5, True, "1"):
        with pytest.raises(InvalidAssignment):
            read_wishes({4: nonsense})


@pytest.mark.parametrize("epsilon", [0.0001, -1.0, 101.0])
def test_an_epsilon_that_protects_nobody_is_refused(epsilon: float) -> None:
    with pytest.raises(InvalidConfiguration):
        parse_settings({"count_noise_epsilon": epsilon})
