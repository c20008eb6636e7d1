"""The verdict on a trial, without a clock: every row of the table, and its edges."""

from __future__ import annotations

from typing import Any

import pytest

from agent.life.footprint import Footprint, measure_footprint
from agent.life.trial import LATENCY_FLOOR_US, SLOW_REQUESTS, Failures, Seen, judge_trial
from agent.settings import Settings
from agent.telemetry.window import Pace
from fleet.protocol.errors import (
    InferenceFailed,
    InferenceNotFinite,
    InferenceTimedOut,
    TrialFailed,
    TrialHung,
    TrialMemoryExceeded,
    TrialNotFinite,
    TrialTooSlow,
)
from fleet.protocol.latency import bucket

MIB = 1024**2
TRIAL = Settings(
    trial_s=60.0,
    trial_limit_s=600.0,
    trial_minimum_predictions=10,
    trial_maximum_errors=2,
    trial_latency_factor=10.0,
    trial_memory_limit_bytes=64 * MIB,
    trial_reserve_memory_bytes=16 * MIB,
)
NONE = Failures()
TWO = NONE.plus(InferenceFailed("It refused.")).plus(InferenceFailed("It failed."))


def pace(duration_us: float, requests: int = 100, samples: int = 1) -> Pace:
    return Pace({bucket(duration_us): requests}, requests * samples)


def seen(elapsed_s: float = 10.0, predictions: int = 100, failures: Failures = NONE, **changes: Any) -> Seen:
    """Return what is seen of a version that does well, but for the changes."""
    well = Seen(
        elapsed_s=elapsed_s,
        predictions=predictions,
        failures=failures,
        pace=pace(20.0),
        before=pace(20.0),
        footprint=Footprint(100 * MIB, 500 * MIB),
        footprint_before=Footprint(90 * MIB, 510 * MIB),
        stated_memory_bytes=10 * MIB,
    )
    return well._replace(**changes)


@pytest.mark.parametrize(
    ("elapsed_s", "predictions", "failures", "passed"),
    [
        (59.9, 1000, NONE, False),
        (60.0, 9, NONE, False),
        (60.0, 10, NONE, True),
        (599.9, 9, NONE, False),
        (600.0, 10, NONE, True),
        (60.0, 10, TWO, True),
    ],
)
def test_a_trial_passes_on_time_and_evidence_alone(
    elapsed_s: float, predictions: int, failures: Failures, passed: bool
) -> None:
    assert judge_trial(seen(elapsed_s, predictions, failures), TRIAL) is passed


@pytest.mark.parametrize(
    ("elapsed_s", "predictions", "failures", "kind", "why"),
    [
        (
            0.0,
            0,
            TWO.plus(InferenceFailed("It failed.")),
            TrialFailed,
            r"^3 inference\(s\) failed during the trial: It failed\.$",
        ),
        (60.0, 10, TWO.plus(InferenceFailed("It failed.")), TrialFailed, r"^3 inference"),
        (0.0, 1000, NONE.plus(InferenceNotFinite("It was NaN.")), TrialNotFinite, r"^1 inference.*NaN"),
        (60.0, 10, NONE.plus(InferenceTimedOut("It hung.")), TrialHung, r"^1 inference.*hung"),
        (600.0, 9, NONE, TrialFailed, r"^Only 9 predictions came in 600 s; 10 are needed\.$"),
        (600.0, 0, TWO.plus(InferenceFailed("It failed.")), TrialFailed, r"^3 inference"),
    ],
)
def test_a_trial_fails_on_a_broken_limit_or_for_want_of_evidence(
    elapsed_s: float, predictions: int, failures: Failures, kind: type[TrialFailed], why: str
) -> None:
    with pytest.raises(TrialFailed, match=why) as failed:
        judge_trial(seen(elapsed_s, predictions, failures), TRIAL)
    assert type(failed.value) is kind


def test_a_limit_below_the_time_does_not_end_a_trial_early() -> None:
    odd = Settings(trial_s=60.0, trial_limit_s=5.0, trial_minimum_predictions=1)
    assert judge_trial(seen(59.0, 0), odd) is False
    with pytest.raises(TrialFailed):
        judge_trial(seen(60.0, 0), odd)
    assert judge_trial(seen(60.0, 1), odd) is True


@pytest.mark.parametrize(
    ("now", "before"),
    [
        (pace(0.9 * LATENCY_FLOOR_US), pace(8.0)),  # a hundred times slower, and still quick
        (pace(9_000.0), pace(1_000.0)),
        (pace(1e6, requests=SLOW_REQUESTS - 1), pace(20.0)),
        (pace(1e6), pace(20.0, requests=SLOW_REQUESTS - 1)),
        (pace(1e6), None),
        (pace(1e6, samples=64), pace(20.0)),  # larger requests, not a slower version
        (pace(1e6), pace(20.0, samples=64)),
        (Pace({bucket(20.0): 91, bucket(1e7): 9}, 100), pace(20.0)),  # a disturbance
    ],
)
def test_what_proves_nothing_is_not_called_slow(now: Pace, before: Pace | None) -> None:
    assert judge_trial(seen(60.0, pace=now, before=before), TRIAL) is True


@pytest.mark.parametrize(
    "now",
    [pace(2_000.0), pace(1e6), Pace({bucket(20.0): 85, bucket(1e6): 15}, 100), pace(1e6, SLOW_REQUESTS)],
)
def test_a_version_far_slower_than_the_one_before_fails(now: Pace) -> None:
    with pytest.raises(TrialTooSlow, match="One request in ten"):
        judge_trial(seen(pace=now), TRIAL)


def test_the_absolute_limit_needs_nothing_to_compare_with() -> None:
    limited = Settings(trial_latency_factor=0.0, trial_latency_limit_ms=5.0)
    assert judge_trial(seen(60.0, pace=pace(4_900.0), before=None), limited) is True
    with pytest.raises(TrialTooSlow, match=r"5 ms are allowed\.$"):
        judge_trial(seen(60.0, pace=pace(7_000.0), before=None), limited)


def test_a_factor_of_none_switches_the_comparison_off() -> None:
    assert judge_trial(seen(60.0, pace=pace(1e7)), Settings(trial_latency_factor=0.0)) is True


@pytest.mark.parametrize(
    ("now", "fails"),
    [
        (Footprint(164 * MIB, 500 * MIB), False),
        (Footprint(164 * MIB + 1, 500 * MIB), True),
        (Footprint(50 * MIB, 16 * MIB), False),
        (Footprint(50 * MIB, 16 * MIB - 1), True),
    ],
)
def test_memory_over_its_budget_fails(now: Footprint, fails: bool) -> None:
    if not fails:
        assert judge_trial(seen(60.0, footprint=now), TRIAL) is True
        return
    with pytest.raises(TrialMemoryExceeded):
        judge_trial(seen(60.0, footprint=now), TRIAL)


def test_a_device_that_was_short_of_memory_before_does_not_blame_the_version() -> None:
    short = seen(60.0, footprint=Footprint(90 * MIB, MIB), footprint_before=Footprint(90 * MIB, 15 * MIB))
    assert judge_trial(short, TRIAL) is True


def test_memory_that_is_taken_is_measured() -> None:
    before = measure_footprint()
    taken = bytearray(b"\x01") * (64 * MIB)
    grown = measure_footprint().own_bytes - before.own_bytes
    assert 60 * MIB < grown < 90 * MIB
    assert before.free_bytes > 0
    del taken
