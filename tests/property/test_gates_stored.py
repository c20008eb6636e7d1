"""Evidence that is stored part by part, as it grows, is read as what it was, and judged likewise."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.rollout.gates.evidence import Arm, Evidence, Tally, gathered
from fleet.rollout.gates.gate import judge
from fleet.rollout.gates.spans import MOST_SPANS
from fleet.rollout.gates.stored import WHOLE, changed_parts, from_parts
from fleet.rollout.plans.plan import Metric, MetricGate
from tests.support.rollouts import plan

METRICS = (
    MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.02, limit=0.1, minimum_samples=20),
    MetricGate(metric=Metric.LATENCY, quantile=0.9, ratio=1.5, budget_us=60_000.0, minimum_samples=20),
)
NUMBERS = st.one_of(st.integers(0, 3), st.integers(0, 100_000))


def _shares() -> st.SearchStrategy[Tally]:
    return st.tuples(NUMBERS, NUMBERS).map(lambda both: Tally.of(min(both), max(both)))


def _histograms() -> st.SearchStrategy[Tally]:
    return st.dictionaries(st.integers(0, 90), st.integers(1, 9_999), max_size=5).map(Tally.of_cells)


def _arms() -> st.SearchStrategy[Arm]:
    counts = (st.integers(0, 300), st.integers(0, 300), st.integers(0, 3))
    one = st.builds(Arm, *counts, st.tuples(_shares(), _histograms()), noised=st.integers(0, 3))
    classes = st.dictionaries(st.sampled_from(["", "board=pi4", "board=pi5"]), one, max_size=3)
    return classes.map(lambda by_class: gathered(by_class, len(METRICS)))


def _batches() -> st.SearchStrategy[Evidence]:
    """What a batch of windows adds, as `fleet.rollout.telemetry` adds it up."""

    def batch(span: int, groups: dict[int, tuple[Arm, Arm]]) -> Evidence:
        whole = Evidence.empty(len(METRICS))
        for group, sides in groups.items():
            whole = whole.plus(Evidence(*sides, groups={group: Evidence(*sides)}))
        return whole.during(span)

    groups = st.dictionaries(st.integers(0, 7), st.tuples(_arms(), _arms()), max_size=3)
    return st.builds(batch, st.integers(0, MOST_SPANS - 1), groups)


@settings(deadline=None, max_examples=15)
@given(st.lists(_batches(), max_size=4), st.booleans())
def test_what_grew_part_by_part_is_read_as_it_was(batches: list[Evidence], ends: bool) -> None:
    evidence, parts = Evidence.empty(len(METRICS)), changed_parts(Evidence.empty(len(METRICS)), None)
    for batch in batches:
        grown = evidence.plus(batch)
        written = changed_parts(grown, evidence)
        assert written.keys() <= {WHOLE, *batch.spans}
        parts |= written
        evidence = grown
    if ends:
        assert changed_parts(evidence.sums, evidence).keys() == {WHOLE}
        parts, evidence = {WHOLE: parts[WHOLE]}, evidence.sums
    read = from_parts(parts)
    assert read == evidence
    assert changed_parts(evidence, evidence) == {}
    assert changed_parts(read, None) == parts
    the_plan = plan("all", metrics=METRICS)
    first, second = (
        judge(the_plan, (one,), has_control=True, heard=1, expected=1) for one in (evidence, read)
    )
    assert msgspec.json.encode(first) == msgspec.json.encode(second)


def test_sums_of_squares_have_no_largest() -> None:
    """Of so many answers nobody hears, but what cannot be stored would stop a rollout."""
    large = Tally.of(2**30, 2**30)
    for _ in range(10):
        large = large.plus(large)
    evidence = Evidence(Arm(1, 1, 0, (large,)), Arm.empty(1))
    assert large.total_squared == 2.0**70
    assert from_parts(changed_parts(evidence, None)) == evidence
