"""Disagreement between versions, and adding up what devices report of it."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from fleet.protocol.manifest import Signature, Tensor
from fleet.protocol.records import MAX_PAIRS, ShadowReport
from fleet.protocol.shadow import (
    TOLERANCE,
    contradiction,
    disagreeing_classes,
    disagreeing_values,
    lowest_pairs,
    merge_shadows,
    numbers_of_classes,
)

SMALL = settings(derandomize=True, deadline=None, max_examples=60)
VALUES = st.floats(-1e6, 1e6, width=32)
ROWS = arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 4)), elements=VALUES)
LATENCY = st.dictionaries(st.integers(0, 127), st.integers(1, 50), max_size=5)
NUMBERS = st.integers(0, 40)


@st.composite
def reports(draw: st.DrawFn) -> ShadowReport:
    """A report that does not contradict itself, often with more pairs than are kept when it is added."""
    pairs = lowest_pairs(draw(st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(1, 9)), max_size=250)))
    disagreed = sum(number for _, _, number in pairs) + draw(st.integers(0, 5))
    latency = draw(LATENCY)
    started_s = draw(st.floats(0, 1e9))
    return ShadowReport(
        started_at_s=started_s,
        ended_at_s=started_s + draw(st.floats(0, 1e6)),
        deployment_id="r1-0f",
        model="digits",
        active_version=1,
        version=2,
        manifest_sha256="ab" * 32,
        compared=disagreed + draw(st.integers(0, 100)),
        disagreed=disagreed,
        errors=draw(st.integers(0, 5)),
        not_finite=draw(st.integers(0, 5)),
        left_out=draw(st.integers(0, 5)),
        active_latency=latency,
        candidate_latency=dict(reversed(latency.items())),
        pairs=pairs,
    )


@given(ROWS)
@SMALL
def test_a_version_never_disagrees_with_itself(values: NDArray[np.float32]) -> None:
    assert not disagreeing_values(values, values).any()
    classes = values.argmax(axis=1)
    assert not disagreeing_classes(classes, classes, None).any()


@given(ROWS, st.data())
@SMALL
def test_a_sample_is_judged_alone(values: NDArray[np.float32], data: st.DataObject) -> None:
    other = data.draw(arrays.arrays(np.float32, values.shape, elements=VALUES))
    together = disagreeing_values(values, other)
    alone = [bool(disagreeing_values(values[n : n + 1], other[n : n + 1])[0]) for n in range(len(values))]
    assert together.tolist() == alone


@given(ROWS, st.integers(0, 5), st.integers(0, 3), st.sampled_from([1.0, -1.0]))
@SMALL
def test_one_element_decides_a_sample(
    values: NDArray[np.float32], row: int, column: int, direction: float
) -> None:
    row, column = row % values.shape[0], column % values.shape[1]
    scale = max(1.0, abs(float(values[row, column])))
    for share, differs in ((0.9, False), (1.1, True)):
        moved = values.astype(np.float64)
        moved[row, column] += direction * share * TOLERANCE * scale
        assert disagreeing_values(values, moved).tolist() == [
            differs and number == row for number in range(len(values))
        ]


@given(ROWS)
@SMALL
def test_what_is_no_number_or_of_another_shape_disagrees(values: NDArray[np.float32]) -> None:
    assert disagreeing_values(values, np.full(values.shape, np.nan)).all()
    assert disagreeing_values(values, np.concatenate([values, values], axis=1)).all()


@given(st.permutations(list("abcde")), st.lists(st.integers(0, 4), min_size=1, max_size=20))
@SMALL
def test_classes_are_compared_by_name(names: list[str], answers: list[int]) -> None:
    active = Signature((Tensor("x", "float32", (-1, 2)),), (Tensor("y", "float32", (-1, 5)),), tuple("abcde"))
    candidate = msgspec.structs.replace(active, classes=tuple(names))
    numbers = numbers_of_classes(active, candidate)
    same = np.array([names.index("abcde"[answer]) for answer in answers])
    assert not disagreeing_classes(np.array(answers), same, numbers).any()
    fewer = msgspec.structs.replace(active, classes=tuple("vwxyz"))
    assert disagreeing_classes(np.array(answers), np.array(answers), numbers_of_classes(active, fewer)).all()


@given(reports(), reports(), reports())
@SMALL
def test_reports_add_up_the_same_in_any_order(a: ShadowReport, b: ShadowReport, c: ShadowReport) -> None:
    total = merge_shadows(merge_shadows(a, b), c)
    assert total == merge_shadows(a, merge_shadows(b, c)) == merge_shadows(merge_shadows(c, a), b)
    assert contradiction(total) is None
    assert len(total.pairs) <= MAX_PAIRS
    for active, candidate, number in total.pairs:  # what is kept is whole
        parts = [n for report in (a, b, c) for x, y, n in report.pairs if (x, y) == (active, candidate)]
        assert number == sum(parts)


@given(reports())
@SMALL
def test_a_report_that_cannot_be_true_says_why(report: ShadowReport) -> None:
    assert contradiction(report) is None
    latency = {5: sum(report.active_latency.values()) + 1}
    for changes in (
        {"ended_at_s": report.started_at_s - 1.0},
        {"compared": report.disagreed - 1},
        {"pairs": ((0, 1, report.disagreed + 1),)},
        {"pairs": ((1, 0, 1), (0, 1, 1)), "compared": report.compared + 2, "disagreed": report.disagreed + 2},
        {"active_latency": latency},
    ):
        assert contradiction(msgspec.structs.replace(report, **changes)) is not None
