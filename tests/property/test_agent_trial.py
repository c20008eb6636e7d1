"""The watchdog of a trial, whatever is seen: no broken limit passes, and noise breaks none."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.life.footprint import Footprint
from agent.life.trial import LATENCY_FLOOR_US, SLOW_REQUESTS, Failures, Seen, judge_trial
from agent.settings import Settings
from agent.telemetry.window import Pace
from fleet.protocol.errors import TrialFailed, TrialTooSlow
from fleet.protocol.latency import bucket, upper_bound_us

RULES = settings(derandomize=True, deadline=None, max_examples=200)
LIMITS = Settings(trial_s=60.0, trial_limit_s=600.0, trial_minimum_predictions=10)
BUCKETS = st.integers(0, 127)
PACES = st.dictionaries(BUCKETS, st.integers(1, 200), max_size=6).flatmap(
    lambda latency: st.builds(
        Pace, st.just(latency), st.integers(sum(latency.values()), 64 * sum(latency.values()))
    )
)
FOOTPRINTS = st.builds(Footprint, st.integers(0, 2**34), st.integers(0, 2**34))
SEEN = st.builds(
    Seen,
    elapsed_s=st.floats(0, 1000),
    predictions=st.integers(0, 1000),
    failures=st.builds(Failures, st.integers(0, 6), st.booleans(), st.booleans(), st.just("It failed.")),
    pace=PACES,
    before=st.none() | PACES,
    footprint=FOOTPRINTS,
    footprint_before=FOOTPRINTS,
    stated_memory_bytes=st.integers(0, 2**30),
)


@given(SEEN)
@RULES
def test_what_passes_has_broken_nothing_and_shown_enough(seen: Seen) -> None:
    try:
        passed = judge_trial(seen, LIMITS)
    except TrialFailed:
        return
    failures = seen.failures
    assert not failures.not_finite
    assert not failures.timed_out
    assert failures.errors <= LIMITS.trial_maximum_errors
    allowed_bytes = seen.stated_memory_bytes + LIMITS.trial_memory_limit_bytes
    assert seen.footprint.own_bytes - seen.footprint_before.own_bytes <= allowed_bytes
    if passed:
        assert seen.elapsed_s >= LIMITS.trial_s
        assert seen.predictions >= LIMITS.trial_minimum_predictions


def well(pace: Pace, before: Pace | None) -> Seen:
    """Return what is seen of a version that does well but for its pace."""
    memory = Footprint(2**26, 2**30)
    return Seen(60.0, 10, Failures(), pace, before, memory, memory, 0)


@given(PACES)
@RULES
def test_a_version_is_never_slower_than_itself(pace: Pace) -> None:
    assert judge_trial(well(pace, pace), LIMITS) is True
    doubled = Pace({min(127, index + 4): n for index, n in pace.latency.items()}, pace.predictions)
    if len(doubled.latency) == len(pace.latency):  # twice as slow is no reason to go back
        assert judge_trial(well(doubled, pace), LIMITS) is True


@given(
    st.lists(st.floats(1.0, LATENCY_FLOOR_US), min_size=1, max_size=50),
    st.lists(st.floats(1.0, 1e9), min_size=1, max_size=50),
)
@RULES
def test_what_is_quick_is_never_too_slow(quick: list[float], before: list[float]) -> None:
    assert judge_trial(well(paced(quick), paced(before)), LIMITS) is True


@given(st.floats(1.0, 1e6), st.integers(SLOW_REQUESTS, 500), st.floats(20.0, 1000.0))
@RULES
def test_far_slower_requests_are_found_however_few_suffice(
    before_us: float, requests: int, factor: float
) -> None:
    slow_us = max(LATENCY_FLOOR_US, upper_bound_us(bucket(before_us))) * factor
    try:
        judge_trial(well(paced([slow_us] * requests), paced([before_us] * requests)), LIMITS)
    except TrialTooSlow:
        return
    raise AssertionError(f"{slow_us} µs after {before_us} µs was not called slow")


def paced(durations_us: list[float]) -> Pace:
    """Return the pace of single samples."""
    latency: dict[int, int] = {}
    for duration_us in durations_us:
        latency[bucket(duration_us)] = latency.get(bucket(duration_us), 0) + 1
    return Pace(latency, len(durations_us))
