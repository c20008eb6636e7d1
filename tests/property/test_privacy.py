"""Noise on counts: distributed as the mechanism says, on each number that travels, gone in large sums."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fleet.drift.matrix import Layout
from fleet.drift.profile import (
    FeatureCounts,
    ReferenceProfile,
    categorical_reference,
    count,
    numeric_reference,
)
from fleet.privacy.noise import geometric_noise, variance
from fleet.privacy.sums import NoisedSum, RoughDrift, rough_drift, summed
from fleet.privacy.windows import merge_noised, noised, noised_contradiction, numbers_of, sensitivity, whole
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.messages import encode
from fleet.protocol.records import TelemetryWindow
from tests.support.stores import window

RNG = np.random.default_rng(11)
REFERENCE = ReferenceProfile(
    (
        numeric_reference("input.mean", RNG.normal(size=4000), bins=16),
        categorical_reference("output.class", RNG.integers(0, 3, 4000), 3),
    )
)
LAYOUT = Layout.of(REFERENCE)


def chance(seed: int) -> Callable[[int], bytes]:
    """Return a source of bytes that says the same each time: a hash in counter mode."""
    blocks = iter(range(2**63))

    def draw(size: int) -> bytes:
        return hashlib.shake_256(f"{seed}.{next(blocks)}".encode()).digest(size)

    return draw


def exact(predictions: int, *, shift: float = 0.0, seed: int = 0) -> TelemetryWindow:
    rng = np.random.default_rng(seed)
    body = window(predictions=predictions)
    body.started_at_s, body.ended_at_s = 1000.0, 1060.0
    body.profile = {
        "input.mean": count(REFERENCE.features[0], rng.normal(loc=shift, size=predictions)),
        "output.class": count(REFERENCE.features[1], rng.integers(0, 3, predictions)),
    }
    return body


@pytest.mark.parametrize("scale", [0.4, 5.0, 38.0])
def test_noise_is_two_sided_geometric(scale: float) -> None:
    drawn = geometric_noise(60_000, scale, chance(3))
    a = math.exp(-1.0 / scale)
    most = max(1, math.ceil(3 * scale))
    inside = np.array([np.count_nonzero(drawn == k) for k in range(-most, most + 1)])
    found = [np.count_nonzero(drawn < -most), *inside, np.count_nonzero(drawn > most)]
    tail = a ** (most + 1) / (1 + a)
    shares = [tail, *((1 - a) / (1 + a) * a ** abs(k) for k in range(-most, most + 1)), tail]
    assert sum(shares) == pytest.approx(1.0)
    assert stats.chisquare(found, np.array(shares) * len(drawn)).pvalue > 0.001
    assert drawn.var() == pytest.approx(variance(scale), rel=0.05)
    assert abs(drawn.mean()) < 4 * math.sqrt(variance(scale) / len(drawn))


@settings(max_examples=30)
@given(scale=st.floats(0.01, 3e5), seed=st.integers(0, 2**32))
def test_noise_is_bounded_and_spends_no_more_chance_than_it_needs(scale: float, seed: int) -> None:
    spent: list[int] = []
    draw = chance(seed)

    def counted(size: int) -> bytes:
        spent.append(size)
        return draw(size)

    drawn = geometric_noise(7, scale, counted)
    assert drawn.shape == (7,)
    assert abs(drawn).max() <= 2 * (64 * scale + 1)
    assert len(spent) <= 2 * (math.log2(64 * scale + 1) + 1)
    assert set(spent) <= {56}


def test_one_row_changes_what_is_told_by_the_sensitivity_at_most() -> None:
    one, none = whole(exact(1).profile, REFERENCE), whole({}, REFERENCE)
    cells = sum(
        abs(one[name].missing - none[name].missing)
        + sum(abs(a - b) for a, b in zip(one[name].cells, none[name].cells, strict=True))
        for name in one
    )
    predictions, labelled, correct = 1, 1, 1
    assert cells + predictions + labelled + correct == sensitivity(len(REFERENCE.features))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), epsilon=st.sampled_from([0.01, 0.5, 1.0, 8.0]))
def test_every_number_of_a_window_is_noised_and_comes_through(seed: int, epsilon: float) -> None:
    body = exact(50)
    told = noised(body, epsilon, chance(seed))
    numbers = numbers_of(told)
    assert [*numbers] == [feature.name for feature in REFERENCE.features]
    size = 4 + sum(len(each) for each in numbers.values())
    scale = sensitivity(2) / epsilon
    noise = geometric_noise(size, scale, chance(seed))
    counted = np.concatenate(
        [
            [body.predictions, body.errors, body.labelled, body.correct],
            *([each.missing, *each.cells] for each in body.profile.values()),
        ]
    )
    scalars = [told.predictions, told.errors, told.labelled, told.correct]
    assert np.array_equal(np.concatenate([scalars, *numbers.values()]), counted + noise)
    assert told.variance == pytest.approx(variance(scale))
    assert noised_contradiction(told) is None


def test_what_would_tell_an_exact_value_does_not_travel() -> None:
    body = exact(200)
    body.latency = {40: 123, 44: 77}
    told = msgspec.msgpack.decode(encode(noised(body, 1.0, chance(1))))
    assert set(told) == {
        *("type", "started_at_s", "ended_at_s", "model", "version", "manifest_sha256", "variant"),
        *("epsilon", "variance", "predictions", "errors", "labelled", "correct", "counts"),
    }
    assert msgspec.msgpack.decode(encode(noised(body, 1.0, chance(2)))) != told


def test_the_same_window_is_told_alike_of_neighbours() -> None:
    """The odds of any output differ by e^ε at most: measured for the one number that decides most."""
    epsilon, runs = 1.0, 20_000
    draw = chance(5)
    scale = 1 / epsilon
    with_row = 1 + geometric_noise(runs, scale, draw)
    without = geometric_noise(runs, scale, draw)
    for value in range(-2, 4):
        odds = np.count_nonzero(with_row == value) / np.count_nonzero(without == value)
        assert math.exp(-epsilon) * 0.85 < odds < math.exp(epsilon) * 1.15


@settings(max_examples=15)
@given(seeds=st.lists(st.integers(0, 2**20), min_size=1, max_size=5))
def test_adding_is_the_same_on_the_device_and_on_the_hub(seeds: list[int]) -> None:
    windows = [noised(exact(30, seed=seed), 1.0, chance(seed)) for seed in seeds]
    merged = windows[0]
    for each in windows[1:]:
        merged = merge_noised(merged, each)
    alone, reasons = summed(windows, LAYOUT)
    assert reasons == [None] * len(windows)
    total: NoisedSum | None = None
    for one in alone:
        assert one is not None
        total = one if total is None else total.plus(one)
    (of_merged,), _ = summed([merged], LAYOUT)
    assert total is not None
    assert of_merged is not None
    assert total.columns().tolist() == of_merged.columns().tolist()
    assert total.variance == pytest.approx(of_merged.variance)
    assert (total.predictions, total.errors) == (of_merged.predictions, of_merged.errors)
    assert total.windows == len(windows)


def _total(shift: float, windows: int, epsilon: float) -> NoisedSum:
    sent = [noised(exact(200, shift=shift, seed=k), epsilon, chance(k)) for k in range(windows)]
    first, *others = [one for one in summed(sent, LAYOUT)[0] if one is not None]
    for one in others:
        first = first.plus(one)
    return first


def test_a_fleet_shows_drift_that_one_window_hides() -> None:
    calm, shifted = _total(0.0, 100, 1.0), _total(1.0, 100, 1.0)
    for rough in rough_drift(calm, REFERENCE):
        assert rough.distance is not None
        assert rough.noise is not None
        assert rough.distance < 3 * rough.noise
    mean, classes = rough_drift(shifted, REFERENCE)
    assert mean.distance == pytest.approx(0.38, abs=0.08)  # of N(0, 1) and N(1, 1)
    assert mean.noise is not None
    assert mean.distance is not None
    assert mean.distance > 3 * mean.noise
    assert classes.distance is not None
    assert classes.noise is not None
    assert classes.distance < 3 * classes.noise
    alone = rough_drift(_total(1.0, 1, 0.01), REFERENCE)
    assert [rough.distance for rough in alone] == [None, None]
    assert "nothing but noise" in alone[0].sentence


@given(st.floats(0.0, 1.0), st.floats(0.001, 1.0))
def test_a_distance_is_worded_by_the_limit_that_is_named(distance: float, noise: float) -> None:
    said = RoughDrift("input.mean", 100, distance, noise).sentence
    over = f"over 3 times the {noise:.3f} that noise and chance alone give on average"
    if distance > 3 * noise:
        assert said == f"input.mean: distance {distance:.3f}, {over}: it differs from the reference"
    else:
        assert said == f"input.mean: distance {distance:.3f}, not {over}: no difference can be told"


def test_what_no_device_can_have_done_is_refused() -> None:
    told = noised(exact(10), 1.0, chance(1))
    assert noised_contradiction(msgspec.structs.replace(told, ended_at_s=0.0)) is not None
    assert noised_contradiction(msgspec.structs.replace(told, predictions=2**31)) is not None
    many = window(predictions=2**31)
    many.profile = {
        name: FeatureCounts([*each.cells[:-1], 2**31]) for name, each in exact(10).profile.items()
    }
    counts = noised(many, 1.0, chance(1)).counts
    _, reasons = summed([msgspec.structs.replace(told, counts=counts)], LAYOUT)
    assert reasons[0] is not None
    assert "requests in 60.0 s" in reasons[0]
    other = msgspec.structs.replace(told, manifest_sha256="cd" * 32)
    with pytest.raises(InvalidMessage):
        merge_noised(told, other)
    _, reasons = summed([msgspec.structs.replace(told, counts=b"\x01\x01nonsense"), told], LAYOUT)
    assert reasons[0] is not None
    assert reasons[1] is None


def test_a_sum_stays_within_what_can_be_stored() -> None:
    (one,), _ = summed([noised(exact(10), 1.0, chance(1))], LAYOUT)
    assert one is not None
    full = msgspec.structs.replace(one, errors=2**62)
    with pytest.raises(InvalidMessage, match="too large"):
        full.plus(one)
