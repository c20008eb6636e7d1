"""How fast a version answered lately: what is kept over windows, and what is forgotten."""

from __future__ import annotations

import numpy as np

from agent.telemetry.window import RECENT_REQUESTS, Counter, Pace
from fleet.protocol.latency import bucket
from tests.support.agent_bundles import VARIANT, build

BUNDLE = build(1)
QUICK_US, SLOW_US = 10.0, 10_000.0


def answer(counter: Counter, requests: int, duration_us: float, samples: int = 1) -> None:
    """Count requests that took equally long."""
    inputs, outputs = np.zeros((samples, 4), np.float32), np.full((samples, 3), 1 / 3, np.float32)
    for _ in range(requests):
        counter.count(inputs, outputs, duration_us)


def new_counter() -> Counter:
    return Counter(BUNDLE.manifest, VARIANT, BUNDLE.sha256)


def test_what_was_answered_is_known_at_once_and_after_its_window_ended() -> None:
    counter = new_counter()
    assert counter.recent() == Pace({}, 0)
    answer(counter, 7, QUICK_US, samples=3)
    expected = Pace({bucket(QUICK_US): 7}, 21)
    assert counter.recent() == expected
    assert counter.close(10.0) is not None
    assert counter.close(20.0) is None
    assert counter.recent() == expected
    assert expected.requests == 7


def test_the_last_requests_outweigh_all_before_them() -> None:
    counter = new_counter()
    answer(counter, 20 * RECENT_REQUESTS, QUICK_US)
    answer(counter, 2 * RECENT_REQUESTS, SLOW_US, samples=2)
    recent = counter.recent()
    assert recent.requests < 3 * RECENT_REQUESTS
    assert recent.latency[bucket(SLOW_US)] > 0.6 * recent.requests
    assert 1.5 < recent.predictions / recent.requests < 2.0


def test_a_half_keeps_the_samples_of_a_request() -> None:
    assert Pace({3: 8, 5: 1}, 90).halved() == Pace({3: 4}, 40)
    assert Pace({}, 0).halved() == Pace({}, 0)
