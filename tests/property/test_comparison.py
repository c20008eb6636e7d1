"""Comparisons: intervals hold the truth, equal sides are never told apart, sides may be swapped."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.comparison import CONFIDENCE, Difference, Side, compare
from fleet.drift.profile import FeatureCounts, categorical_reference, count, numeric_reference
from fleet.protocol.latency import count_durations

RNG = np.random.default_rng(0)
MEAN = numeric_reference("input.mean", RNG.normal(size=4000), bins=16)
CLASS = categorical_reference("output.class", RNG.integers(0, 4, 4000), 4)
EDGES = {"input.mean": MEAN.edges, "output.class": None}


def _side(
    rng: np.random.Generator, n: int, *, errors: float = 0.02, slow: float = 1.0, shift: float = 0.0
) -> Side:
    confident = rng.beta(9, 1, n)
    return Side(
        predictions=n,
        errors=int(rng.binomial(n, errors)),
        labelled=n // 2,
        correct=int(rng.binomial(n // 2, 0.9)),
        latency=count_durations(rng.lognormal(6.0, 0.3, n) * slow),
        confidence=float(confident.mean()),
        confidences=n,
        features={
            "input.mean": count(MEAN, rng.normal(shift, 1.0, n)),
            "output.class": count(CLASS, rng.integers(0, 4, n)),
        },
    )


def _rows(left: Side, right: Side) -> dict[str, Difference]:
    return {row.quantity: row for row in compare(left, right, EDGES)}


def test_equal_sides_are_told_apart_less_often_than_is_promised() -> None:
    rng = np.random.default_rng(1)
    shown = sum(
        any(row.is_shown for row in compare(_side(rng, 300), _side(rng, 500), EDGES)) for _ in range(40)
    )
    assert shown / 40 <= 1.0 - CONFIDENCE


def test_the_truth_is_in_every_interval_of_sides_that_differ() -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        rows = _rows(_side(rng, 4000, errors=0.1, slow=2.0, shift=0.5), _side(rng, 3000))
        truths = {
            "error_share": 0.1 / 1.1 - 0.02 / 1.02,
            "accuracy": 0.0,
            "confidence": 0.0,
            "latency_p50_us": math.exp(6.0),
            "latency_p90_us": math.exp(6.0 + 1.2816 * 0.3),
        }
        for name, truth in truths.items():
            lower, upper = rows[name].lower, rows[name].upper
            assert lower is not None
            assert upper is not None
            assert lower <= truth <= upper, name
        distance = math.erf(0.25 / math.sqrt(2.0))  # of two normals half a deviation apart
        assert rows["input.mean"].lower is not None
        assert 0.0 < rows["input.mean"].lower <= distance <= (rows["input.mean"].upper or 0.0)


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"errors": 0.1}, {"error_share"}),
        ({"slow": 2.0}, {"latency_p50_us", "latency_p90_us", "latency_p99_us"}),
        ({"shift": 1.0}, {"input.mean"}),
    ],
)
def test_what_differs_is_shown_and_nothing_else(changed: dict[str, float], names: set[str]) -> None:
    rng = np.random.default_rng(3)
    rows = _rows(_side(rng, 5000, **changed), _side(rng, 5000))
    assert {name for name, row in rows.items() if row.is_shown} == names
    for name in names - {"input.mean"}:
        assert f"{name}: higher on the left" in rows[name].sentence
    mean = rows["input.mean"]
    assert mean.wasserstein is not None
    assert mean.wasserstein == pytest.approx(changed.get("shift", 0.0), abs=0.05)
    assert rows["output.class"].wasserstein is None


counts = st.integers(0, 2000)


@st.composite
def _sides(draw: st.DrawFn) -> Side:
    labelled = draw(counts)

    def cells(n: int) -> st.SearchStrategy[list[int]]:
        return st.lists(counts, min_size=n, max_size=n)

    latency = draw(st.dictionaries(st.integers(0, 127), st.integers(1, 1000), max_size=5))
    return Side(
        predictions=draw(counts),
        errors=draw(counts),
        labelled=labelled,
        correct=draw(st.integers(0, labelled)),
        latency=latency,
        confidence=draw(st.none() | st.floats(0, 1)),
        confidences=draw(counts),
        features={"input.mean": FeatureCounts(draw(cells(len(MEAN.cells))), draw(counts))}
        if draw(st.booleans())
        else {},
    )


@settings(max_examples=40)
@given(_sides(), _sides())
def test_swapping_the_sides_turns_every_row_around(left: Side, right: Side) -> None:
    there, back = _rows(left, right), _rows(right, left)
    for name, row in there.items():
        other = back[name]
        assert row.is_shown == other.is_shown
        assert (row.left, row.left_samples) == (other.right, other.right_samples)
        assert row.sentence.startswith(f"{name}: ")
        if row.left is None:
            assert (row.lower, row.upper) == (other.lower, other.upper)
        else:
            assert (row.lower is None) == (other.upper is None)
            assert row.lower is None or row.lower == pytest.approx(-(other.upper or 0.0), abs=1e-9)
        if row.difference is not None:
            assert row.lower is None or row.lower <= row.difference + 1e-9
            assert row.upper is None or row.difference <= row.upper + 1e-9


@given(_sides())
def test_a_side_against_itself_shows_nothing(side: Side) -> None:
    assert not any(row.is_shown for row in compare(side, side, EDGES))
