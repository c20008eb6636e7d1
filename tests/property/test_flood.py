"""The limit of what one device may send, for any order and size of what comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.flood import FloodLimits, Verdict, admit, cost, full

LIMITS = FloodLimits(rate=10.0, burst=100.0, quarantine_after_s=60.0, quarantine_s=300.0)
steps = st.lists(
    st.tuples(st.floats(0, 30), st.lists(st.integers(1, 40), max_size=30)), min_size=1, max_size=40
)


@given(steps)
def test_no_more_is_taken_than_came_in_tokens(each: list[tuple[float, list[int]]]) -> None:
    now_s, taken, state = 1000.0, 0, full(LIMITS, 1000.0)
    for passed_s, costs in each:
        now_s += passed_s
        admission = admit(state, LIMITS, costs, now_s)
        state = admission.state
        taken += sum(costs[: admission.admitted])
        assert 0 <= admission.admitted <= len(costs)
        assert (admission.admitted == len(costs)) == (admission.verdict is Verdict.TAKEN) or not costs
        assert taken <= LIMITS.burst + LIMITS.rate * (now_s - 1000.0) + 1e-6


@given(st.lists(st.floats(0.5, 5.0), min_size=1, max_size=100))
def test_a_device_within_its_rate_is_never_limited(pauses_s: list[float]) -> None:
    now_s, state = 0.0, full(LIMITS, 0.0)
    for pause_s in pauses_s:
        now_s += pause_s
        admission = admit(state, LIMITS, [1] * int(LIMITS.rate * pause_s), now_s)
        state = admission.state
        assert admission.verdict is Verdict.TAKEN


@given(st.floats(0.1, 5.0))
def test_a_flood_that_lasts_ends_in_quarantine_and_that_ends_too(step_s: float) -> None:
    now_s, state, began_s = 0.0, full(LIMITS, 0.0), None
    while began_s is None:
        admission = admit(state, LIMITS, [1] * 1000, now_s)
        state = admission.state
        if admission.began:
            began_s = now_s
        assert now_s <= LIMITS.quarantine_after_s + step_s
        now_s += step_s
    assert began_s >= LIMITS.quarantine_after_s
    during = admit(state, LIMITS, [1], began_s + 0.99 * LIMITS.quarantine_s)
    assert (during.admitted, during.verdict, during.began) == (0, Verdict.QUARANTINED, False)
    after = admit(during.state, LIMITS, [1] * 100, began_s + LIMITS.quarantine_s)
    assert (after.admitted, after.verdict) == (100, Verdict.TAKEN)


@given(st.integers(1, 6))
def test_single_bursts_with_calm_between_them_are_limited_and_no_flood(bursts: int) -> None:
    now_s, state = 0.0, full(LIMITS, 0.0)
    for _ in range(bursts * 10):
        for _ in range(2):
            admission = admit(state, LIMITS, [1] * 150, now_s)
            state = admission.state
            assert admission.verdict is Verdict.LIMITED
        now_s += LIMITS.calm_s * 2


@given(st.floats(0, 1e6))
def test_a_clock_that_goes_back_gives_no_tokens(back_s: float) -> None:
    state = admit(full(LIMITS, 1e7), LIMITS, [1] * 100, 1e7).state
    assert admit(state, LIMITS, [1], 1e7 - back_s).verdict is Verdict.LIMITED


def test_a_long_message_costs_more() -> None:
    assert [cost(size) for size in (0, 400, 8191, 8192, 262144)] == [1, 1, 1, 2, 33]


@given(st.floats(0.0, 1e9))
def test_a_clock_that_is_set_back_makes_no_quarantine_longer(back_s: float) -> None:
    now_s, state = 2e9, full(LIMITS, 2e9)
    while state.quarantined_until_s is None:
        state = admit(state, LIMITS, [1] * 1000, now_s).state
        now_s += 1.0
    again = admit(state, LIMITS, [1], now_s - LIMITS.quarantine_s - 2.0 - back_s)
    assert again.verdict is Verdict.TAKEN
    assert again.state.is_calm
