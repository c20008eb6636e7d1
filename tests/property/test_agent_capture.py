"""What is captured: by the policy and nothing else, and never more than a day may have."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.capture.budget import DAY_S, Budget
from agent.capture.selection import Picked, pick
from fleet.drift.features import OUTPUT_CONFIDENCE, build_reference, extract
from fleet.protocol.capture import MILLION, CapturePolicy
from fleet.protocol.samples import Reason

RANDOM = np.random.default_rng(5)
INPUTS = RANDOM.normal(size=(400, 3))
OUTPUTS = RANDOM.dirichlet(np.ones(4), 400)
REFERENCE = build_reference("classification", INPUTS, OUTPUTS)
POLICY = CapturePolicy(expires_at_s=2**40, bytes_per_day=1000, sample_bytes=100)


def policy(below: float = 0.0, *, drifted: bool = False, share: float = 0.0) -> CapturePolicy:
    return CapturePolicy(2**40, 1000, 100, int(below * MILLION), drifted, int(share * MILLION))


@settings(max_examples=50, derandomize=True, deadline=None)
@given(
    count=st.integers(1, 20),
    below=st.floats(0, 1),
    drifted=st.booleans(),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_each_sample_is_captured_for_the_first_reason_that_holds(
    count: int, below: float, drifted: bool, share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    inputs, outputs, draws = (
        rng.normal(size=(count, 3)) * 2,
        rng.dirichlet(np.ones(4), count),
        rng.random(count),
    )
    asked = policy(below, drifted=drifted, share=share)
    found = {picked.row: picked for picked in pick(asked, REFERENCE, inputs, outputs, draws)}
    values = extract([feature.name for feature in REFERENCE.features], inputs, outputs)
    for row in range(count):
        beyond = [
            feature.name
            for feature in REFERENCE.features
            if feature.edges and not feature.edges[0] <= float(values[feature.name][row]) <= feature.edges[-1]
        ]
        if outputs[row].max() * MILLION < asked.uncertain_below:
            assert found[row] == Picked(row, Reason.UNCERTAIN)
        elif drifted and beyond:
            assert found[row] == Picked(row, Reason.DRIFTED, beyond[0])
        elif draws[row] * MILLION < asked.random_share:
            assert found[row] == Picked(row, Reason.RANDOM)
        else:
            assert row not in found


def test_a_request_that_is_not_examined_is_captured_for_other_reasons_only() -> None:
    asked = policy(drifted=True, share=1.0)
    far = np.full((1, 3), 1e6)
    (examined,) = pick(asked, REFERENCE, far, OUTPUTS[:1], np.zeros(1))
    (other,) = pick(asked, REFERENCE, far, OUTPUTS[:1], np.zeros(1), examine=False)
    assert (examined.reason, other.reason) == (Reason.DRIFTED, Reason.RANDOM)


def test_a_policy_that_captures_nothing_picks_nothing() -> None:
    assert pick(POLICY, REFERENCE, INPUTS, OUTPUTS, np.zeros(400)) == []


def test_missing_values_and_classes_that_no_sample_had_are_drift() -> None:
    sure = np.array([[0.97, 0.01, 0.01, 0.01]])
    known = INPUTS[:1]
    assert pick(policy(drifted=True), REFERENCE, known, OUTPUTS[:1], np.ones(1)) == []
    silent = np.array([[np.nan, 1.0, -1.0]])
    (picked,) = pick(policy(drifted=True), REFERENCE, silent, OUTPUTS[:1], np.ones(1))
    assert picked == Picked(0, Reason.DRIFTED, "input.0")
    never = build_reference("classification", INPUTS, np.repeat([[0.01, 0.01, 0.01, 0.97]], 400, axis=0))
    (picked,) = pick(policy(drifted=True), never, known, sure, np.ones(1))
    assert picked.feature == "output.class"


def test_answers_that_are_no_probabilities_are_never_uncertain() -> None:
    margins = RANDOM.normal(size=(50, 4))
    reference = build_reference("classification", INPUTS[:50], margins)
    assert OUTPUT_CONFIDENCE not in {feature.name for feature in reference.features}
    assert pick(policy(1.0), reference, INPUTS[:50], margins, np.ones(50)) == []


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    per_day=st.integers(1, 10**6),
    limit=st.integers(0, 10**6),
    sample_bytes=st.integers(1, 10**5),
    steps=st.lists(st.tuples(st.floats(0, DAY_S / 2), st.integers(1, 10**5)), max_size=60),
)
def test_no_day_has_more_than_it_may(
    per_day: int, limit: int, sample_bytes: int, steps: list[tuple[float, int]]
) -> None:
    asked = CapturePolicy(2**40, per_day, sample_bytes, drifted=True)
    budget = Budget(asked, limit, day=0, spent_bytes=0, now_s=0.0)
    now_s, taken = 0.0, dict[int, int]()
    for wait_s, size_bytes in steps:
        now_s += wait_s
        day = int(now_s // DAY_S)
        if budget.take(size_bytes, at_s=now_s, now_s=now_s):
            taken[day] = taken.get(day, 0) + size_bytes
        if size_bytes % 3 == 0:  # a restart forgets the bucket, and not what the day has spent
            budget = Budget(asked, limit, day=budget.day, spent_bytes=budget.spent_bytes, now_s=now_s)
    assert all(total <= min(per_day, limit) for total in taken.values())


def test_what_a_day_may_have_is_spread_over_it() -> None:
    asked = CapturePolicy(2**40, bytes_per_day=24_000, sample_bytes=100, drifted=True)
    budget = Budget(asked, 10**9, day=0, spent_bytes=0, now_s=0.0)
    taken = [budget.take(100, at_s=second, now_s=second) for second in range(0, 7200, 10)]
    assert sum(taken[:360]) <= 20  # an hour's worth at once, and what the hour itself brings
    assert 5 <= sum(taken[360:]) <= 11
