"""Answers counted in blocks count as they would one by one, whatever requests they come in."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.telemetry.block import MAX_SAMPLES
from agent.telemetry.window import PROFILED_NUMBERS, Counter
from fleet.drift.features import count_block, reads_inputs
from fleet.drift.profile import merge_profiles
from fleet.protocol.latency import bucket, count_durations, merge_latency
from fleet.protocol.records import TelemetryWindow
from tests.support.agent_bundles import VARIANT, build
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

MANIFEST = build(1).manifest
PROFILE = MANIFEST.reference
MANY = st.sampled_from([[], [MAX_SAMPLES], [2 * MAX_SAMPLES + 1], [MAX_SAMPLES, MAX_SAMPLES]])
"""Sizes of requests that fill blocks. Each of their rows is counted alone beside, which takes long."""


def counter() -> Counter:
    return Counter(MANIFEST, VARIANT, "0" * 64)


def closed(counted: Counter) -> TelemetryWindow:
    window = counted.close(9.0)
    assert window is not None
    return window


def samples(count: int, numbers: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return inputs, of which some values are missing, and probabilities."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, numbers)).astype(np.float32)
    inputs[rng.random(inputs.shape) < 0.05] = np.nan
    return inputs, rng.dirichlet(np.ones(3), size=count).astype(np.float32)


@settings(max_examples=examples(25), derandomize=True, deadline=None)
@given(
    sizes=st.tuples(st.lists(st.integers(1, 9), max_size=10), MANY).flatmap(
        lambda few_and_many: st.permutations([*few_and_many[0], *few_and_many[1]])
    ),
    widths=st.lists(st.sampled_from([4, 4, 7, 900]), min_size=12, max_size=12),
    seed=st.integers(0, 2**32),
)
def test_counting_in_blocks_is_counting_one_by_one(sizes: list[int], widths: list[int], seed: int) -> None:
    blocks, expected = counter(), TelemetryWindow(0, 0, "", 0, "", "")
    for size, width in zip(sizes, widths, strict=False):
        inputs, outputs = samples(size, width, seed)
        blocks.count(inputs, outputs, 1000.0 / size)
        expected.predictions += size
        expected.latency = merge_latency(expected.latency, {bucket(1000.0 / size): 1})
        for row in range(size):
            one = count_block(PROFILE, inputs[row : row + 1], outputs[row : row + 1])
            expected.profile = merge_profiles(expected.profile, one)
        inputs[:] = np.inf  # what was given is the caller's again
        outputs[:] = np.inf
    window = blocks.close(9.0)
    if not sizes:
        assert window is None
        return
    assert window is not None
    assert (window.predictions, window.latency) == (expected.predictions, expected.latency)
    assert window.profile == expected.profile


@given(durations_ns=st.lists(st.integers(0, 10**14), max_size=50))
def test_durations_fall_into_their_buckets(durations_ns: list[int]) -> None:
    durations_us = [duration / 1000 for duration in durations_ns]
    expected: dict[int, int] = {}
    for duration in durations_us:
        expected[bucket(duration)] = expected.get(bucket(duration), 0) + 1
    assert count_durations(np.array(durations_us)) == expected


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("period", [2, 7, 12])
def test_of_large_inputs_an_even_share_is_profiled_whatever_their_period(batch: int, period: int) -> None:
    """Cameras that take turns: every one of them gets its share."""
    requests, every = 1200 // batch, 12
    counted = counter()
    _, outputs = samples(batch, 1, 1)
    for request in range(requests):
        turns = (np.arange(batch) + request * batch) % period
        inputs = np.repeat(turns.astype(np.float32)[:, None], every * PROFILED_NUMBERS, axis=1)
        counted.count(inputs, outputs, 1.0)
    window = closed(counted)
    profiled = {name: counts.total for name, counts in window.profile.items()}
    assert window.predictions == profiled["output.class"] == profiled["output.confidence"] == 1200
    assert all(90 <= profiled[name] <= 110 for name in profiled if reads_inputs(name))
    mean = window.profile["input.mean"]
    assert (mean.minimum, mean.maximum) == (0.0, period - 1.0)


def test_several_threads_count_into_one_window() -> None:
    counted, windows = counter(), []
    inputs, outputs = samples(1, 4, 3)

    def count() -> None:
        for _ in range(2000):
            counted.count(inputs, outputs, 1.0)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        windows.append(counted.close(1.0))
    for thread in threads:
        thread.join()
    windows.append(counted.close(2.0))
    assert sum(window.predictions for window in windows if window is not None) == 8000
    assert sum(window.profile["output.class"].total for window in windows if window is not None) == 8000
