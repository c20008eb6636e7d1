"""The token bucket: never more than its promise in any span, never less than it when asked often enough."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.telemetry.rate import TokenBucket

RATES = st.floats(0.1, 1000.0)
BURSTS = st.integers(1, 50)
STEPS_S = st.lists(st.floats(0.0, 3.0), min_size=1, max_size=60)
MANY = settings(max_examples=200, derandomize=True, deadline=None)


@given(RATES, BURSTS, STEPS_S, st.data())
@MANY
def test_in_every_span_go_at_most_a_burst_and_the_rate(
    rate_per_s: float, burst: int, steps_s: list[float], data: st.DataObject
) -> None:
    bucket = TokenBucket(rate_per_s, burst, 0.0)
    went: list[tuple[float, int]] = []
    for now_s in accumulate(steps_s):
        count = data.draw(st.integers(0, bucket.available(now_s)))
        bucket.take(count, now_s)
        went.append((now_s, count))
    for first in range(len(went)):
        total = 0
        for at_s, count in went[first:]:
            total += count
            assert total <= burst + rate_per_s * (at_s - went[first][0]) + 1e-6


@given(RATES, st.integers(2, 50), STEPS_S)
@MANY
def test_who_takes_all_there_is_gets_the_rate(rate_per_s: float, burst: int, steps_s: list[float]) -> None:
    bucket, total, now_s = TokenBucket(rate_per_s, burst, 0.0), 0, 0.0
    for step_s in [0.0, *steps_s]:
        now_s += min(step_s, burst / rate_per_s / 2)  # so often that the bucket never overflows
        available = bucket.available(now_s)
        bucket.take(available, now_s)
        total += available
    assert burst + rate_per_s * now_s - total < 1 + 1e-6


@given(RATES, BURSTS, st.floats(0.0, 100.0))
@MANY
def test_after_the_wait_one_may_go(rate_per_s: float, burst: int, now_s: float) -> None:
    bucket = TokenBucket(rate_per_s, burst, now_s)
    assert bucket.wait_s(now_s) == 0.0
    bucket.take(burst, now_s)
    wait_s = bucket.wait_s(now_s)
    assert bucket.available(now_s) == 0
    assert bucket.available(now_s + wait_s * 0.9) == 0
    assert bucket.available(now_s + wait_s + 1e-9 + wait_s * 1e-9) == 1


@given(RATES, BURSTS, st.floats(1.0, 1e9))
@MANY
def test_a_clock_that_goes_back_gives_nothing_away(rate_per_s: float, burst: int, back_s: float) -> None:
    bucket = TokenBucket(rate_per_s, burst, 1e9)
    bucket.take(burst, 1e9)
    assert bucket.available(1e9 - back_s) == 0
    assert bucket.available(1e9) == 0
