"""A candidate in the shadow of the version that answers, on a real device: its comparison and its limits."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from agent.life.terms import CRASH_LIMIT
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.latency import BUCKETS_PER_OCTAVE, upper_bound_us
from fleet.protocol.records import ShadowReport
from fleet.protocol.shadow import merge_shadows
from tests.support.agent_bundles import Bundle, build, build_costly, expected_class
from tests.support.agent_device import SAMPLE, Device
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
    settle,
)
from tests.support.agent_peer import Peer
from tests.support.waiting import eventually

MIB = 1024**2
ONE, TWO = build(1), build(2)
NAN = build(2, negative_gives_nan=True)
SLOW = build_costly(2, rounds=2_000)
HANGING = build_costly(2, rounds=1_000_000)
LARGE = build_costly(2, rounds=1_000, numbers=MIB // 4)  # a MiB for each unit of brightness above 1
NEGATIVE = [-1.0, -1.0, -1.0, -1.0]
LONG_S = 40
"""Longer than the tests take; a hundredth of it is the least time between two reports."""


def in_shadow(peer: Peer, device: Device, bundle: Bundle, *, shadow_s: int = LONG_S) -> None:
    """Bring a device that answers with version 1 to compare another, and wait until it does."""
    settle(peer, device, ONE)
    peer.release(bundle)
    peer.assign(device.id, (bundle, "d-2"), shadow_s=shadow_s)
    eventually(lambda: peer.shadows("d-2"), "the first report of the shadow, about nothing, is here")


def total(peer: Peer) -> ShadowReport:
    """Return everything that was reported of the shadow."""
    first, *others = peer.shadows("d-2")
    for other in others:
        first = merge_shadows(first, other)
    return first


def wait_for_requests(peer: Peer, asked: int) -> None:
    """Wait until every request is accounted for."""

    def told() -> int:
        report = total(peer)
        return sum(report.active_latency.values()) + report.left_out

    eventually(lambda: told() == asked, f"{asked} requests are accounted for")


def wait_for_another(peer: Peer, since_s: float) -> None:
    """Wait until a shadow has begun once more since a time, which the device tells."""
    eventually(lambda: any(r.started_at_s >= since_s for r in peer.shadows("d-2")), "it is compared again")


def supersede(peer: Peer, device: Device) -> None:
    """End a shadow by another order; what was counted until then is reported."""
    peer.assign(device.id, (ONE, "d-3"))
    peer.wait_report("d-2", S.CANCELED)
    peer.wait_report("d-3", S.SUCCEEDED)


def test_disagreement_is_reported_exactly_and_the_candidate_answers_nobody(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device()
    in_shadow(peer, device, TWO)
    samples = np.random.default_rng(11).normal(size=(40, 4)).round(3).tolist()
    replies = [device.infer(sample) for sample in samples[:20]]
    replies += [device.infer(*samples[n : n + 4]) for n in range(20, 40, 4)]
    assert {(reply.status, reply.body["model_version"]) for reply in replies} == {(200, "1")}
    eventually(lambda: total(peer).compared == 40)
    pairs = Counter((expected_class(1, sample), expected_class(2, sample)) for sample in samples)
    differing = {pair: number for pair, number in pairs.items() if pair[0] != pair[1]}
    assert differing, "the versions agree on every sample: this shows nothing"
    report = total(peer)
    assert report.pairs == tuple((*pair, differing[pair]) for pair in sorted(differing))
    assert report.disagreed == sum(differing.values())
    assert (report.errors, report.not_finite, report.left_out) == (0, 0, 0)
    assert sum(report.active_latency.values()) == sum(report.candidate_latency.values()) == 25
    assert (report.active_version, report.version, report.manifest_sha256) == (1, 2, TWO.sha256)
    supersede(peer, device)
    assert device.answering_version() == "1"


def test_after_the_shadow_comes_the_trial(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device()
    in_shadow(peer, device, TWO, shadow_s=1)
    peer.wait_report("d-2", S.SUCCEEDED)
    states = [report.state for report in peer.reports("d-2")]
    assert states[-4:] == [S.STAGED, S.SHADOW, S.TRIAL, S.SUCCEEDED]
    assert device.answering_version() == "2"


@pytest.mark.parametrize(
    ("bundle", "sample", "counted"),
    [
        (NAN, NEGATIVE, "not_finite"),
        (HANGING, [1e6, 0.0, 0.0, 0.0], None),
        (LARGE, [65.0, 0.0, 0.0, 0.0], None),
    ],
    ids=["not finite", "hanging", "large"],
)
def test_a_candidate_that_fails_in_the_shadow_never_answers(
    peer: Peer, make_device: MakeDevice, bundle: Bundle, sample: list[float], counted: str | None
) -> None:
    device = make_device(inference_timeout_s=2.0, shadow_memory_limit_bytes=32 * MIB)
    in_shadow(peer, device, bundle)
    replies = [device.infer(given) for given in (SAMPLE, sample)]
    while not any(report.state.is_terminal for report in peer.reports("d-2")):
        replies.append(device.infer(SAMPLE))
    assert {(reply.status, reply.body["model_version"]) for reply in replies} == {(200, "1")}
    end = peer.wait_end("d-2")
    assert (end.state, end.cause and end.cause.code) == (S.FAILED, "shadow_failed")
    assert S.TRIAL not in {report.state for report in peer.reports("d-2")}
    if counted is not None:
        eventually(lambda: getattr(total(peer), counted) == 1, "it was counted")
    assert device.answering_version() == "1"


def test_a_slow_candidate_is_compared_less_and_keeps_to_its_share(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device(shadow_cpu_share=0.2)
    in_shadow(peer, device, SLOW)
    asked = 150
    bright = [2.0, 0.0, 0.0, 0.0]
    replies = [device.infer(bright) for _ in range(asked)]
    assert {(reply.status, reply.body["model_version"]) for reply in replies} == {(200, "1")}
    supersede(peer, device)
    wait_for_requests(peer, asked)
    report = total(peer)
    assert report.left_out > 0
    durations = report.candidate_latency
    least_us = sum(upper_bound_us(b) / 2 ** (1 / BUCKETS_PER_OCTAVE) * n for b, n in durations.items())
    slowest_us = upper_bound_us(max(durations))
    elapsed_us = (report.ended_at_s - report.started_at_s) * 1e6
    assert least_us <= 0.2 * elapsed_us + slowest_us


def test_a_shadow_goes_on_after_a_crash_and_is_given_up_at_the_third(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device()
    in_shadow(peer, device, TWO)
    for crashes in range(CRASH_LIMIT):
        device.kill()
        restarted_s = time.time()
        device.start()
        device.wait_version(1)
        if crashes < CRASH_LIMIT - 1:
            wait_for_another(peer, restarted_s)
    end = peer.wait_end("d-2")
    assert (end.state, end.cause and end.cause.code) == (S.FAILED, "trial_crashed")
    assert peer.wait_running(1, "REJECTED")


def test_an_orderly_stop_in_the_shadow_is_no_crash_and_keeps_what_was_counted(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device()
    in_shadow(peer, device, TWO)
    for stops in range(CRASH_LIMIT):
        assert device.infer(SAMPLE, SAMPLE).body["model_version"] == "1"
        assert device.stop() < 1.0
        restarted_s = time.time()
        device.start()
        wait_for_requests(peer, stops + 1)
        wait_for_another(peer, restarted_s)
    assert peer.wait_running(1, "SHADOW")
    assert not any(report.state.is_terminal for report in peer.reports("d-2"))
