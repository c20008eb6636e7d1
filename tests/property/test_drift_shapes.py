"""Bets on shapes are e-values whatever is normal, and the best ones against what they bet on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fleet.drift.evidence import find
from fleet.drift.profile import FeatureReference, count, numeric_reference
from fleet.drift.shapes import MOVES, WEIGHT_OF_SHAPES, shape_bets
from fleet.drift.splits import band

Floats = NDArray[np.float64]
CELLS = st.lists(st.integers(0, 300), min_size=3, max_size=70).filter(lambda cells: sum(cells) >= 30)


def _reference(cells: list[int]) -> FeatureReference:
    edges = tuple(float(number) for number in range(len(cells) - 1))
    return FeatureReference("x", cells=tuple(cells), edges=edges, allowance=3.5)


def _normal_shares(reference: FeatureReference, rng: np.random.Generator, eager: float) -> Floats:
    """Return the shares of a distribution in the band; at its ends if eager is great."""
    normal = band(reference, 1)
    low, high = np.sin(normal.low[:-1]) ** 2, np.sin(normal.high[:-1]) ** 2
    between = np.clip(0.5 + eager * (rng.random(len(low)) - 0.5), 0.0, 1.0)
    below = np.maximum.accumulate(low + between * (high - low))
    return np.diff(below, prepend=0.0, append=1.0)


@given(CELLS, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, 3.0, 100.0]))
@settings(deadline=None)
def test_without_drift_no_bet_wins_on_average(cells: list[int], seed: int, eager: float) -> None:
    reference = _reference(cells)
    shares = _normal_shares(reference, np.random.default_rng(seed), eager)
    assert (np.exp(shape_bets(reference, 1).ratios) @ shares <= 1.0 + 1e-9).all()


@given(CELLS, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, 100.0]))
@settings(deadline=None)
def test_what_a_bet_is_against_is_the_nearest_there_is(cells: list[int], seed: int, eager: float) -> None:
    """What it wins of one value of its alternative is the divergence to P*: no P of the band is nearer."""
    reference = _reference(cells)
    smooth = np.asarray(cells) + 0.5
    strayed = 0.95 * smooth / smooth.sum() + 0.05 * (np.arange(len(cells)) == len(cells) - 1)
    won = float(shape_bets(reference, 1).ratios[-2] @ strayed)
    shares = np.maximum(1e-300, _normal_shares(reference, np.random.default_rng(seed), eager))
    assert won <= float(strayed @ np.log(strayed / shares)) + 1e-3
    assert won >= -1e-3


def test_weights_add_up() -> None:
    reference = numeric_reference("x", np.random.default_rng(1).normal(size=5000))
    bets = shape_bets(reference, 4)
    assert np.exp(bets.log_weights).sum() == pytest.approx(WEIGHT_OF_SHAPES)
    assert bets.ratios.shape == (len(bets.log_weights), len(reference.cells))


def test_where_everything_is_normal_nothing_is_won_or_lost() -> None:
    """A reference of few values allows so much that even moves are normal."""
    ratios = shape_bets(_reference([3, 9, 9, 9, 3]), 1).ratios
    assert np.abs(ratios[: len(MOVES) // 2]).max() < 1e-3


@pytest.mark.parametrize("move", [0.3, -0.3])
def test_a_small_move_of_all_values_is_found_by_its_shape(move: float) -> None:
    """The best split alone wins less."""
    rng = np.random.default_rng(8)
    reference = numeric_reference("x", rng.normal(size=100_000))
    cells = np.array(count(reference, rng.normal(move, 1.0, size=100_000)).cells)
    won = (shape_bets(reference, 1).ratios @ cells).max() / 100_000
    angles, normal = np.arcsin(np.sqrt(np.cumsum(cells)[:-1] / 100_000)), band(reference, 1)
    outside = np.maximum(angles - normal.high[:-1], normal.low[:-1] - angles).max()
    assert won > 1.05 * 2.0 * outside**2


def test_millions_of_values_are_evidence_and_not_infinite() -> None:
    rng = np.random.default_rng(9)
    reference = numeric_reference("x", rng.normal(size=1000))
    found = find(reference, count(reference, np.full(3_000_000, 50.0)), 1)
    assert np.isfinite(found.evidence)
    assert found.evidence > 1e5
