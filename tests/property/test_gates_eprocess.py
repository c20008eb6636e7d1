"""E-processes: at most 1 on average where their null hypothesis holds, by counting every outcome."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from fleet.rollout.gates.eprocess import Counts, against_control, against_limit, mean, of_quantiles

SAMPLES = 12


def chance(bad: int, share: float) -> float:
    return math.comb(SAMPLES, bad) * share**bad * (1.0 - share) ** (SAMPLES - bad)


def buckets(counts: dict[int, int]) -> list[int]:
    return [counts.get(bucket, 0) for bucket in range(50)]


@pytest.mark.parametrize("limit", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 1.0])
def test_one_arm_is_worth_1_on_average_at_most(limit: float, part: float) -> None:
    """Shares up to the limit are harmless, from it on harmful; and a bet that is right wins."""
    below, above = part * limit, 1.0 - part * (1.0 - limit)
    found = against_limit([Counts(bad, SAMPLES) for bad in range(SAMPLES + 1)], limit)
    harm = sum(chance(bad, below) * math.exp(one.harm) for bad, one in enumerate(found))
    safety = sum(chance(bad, above) * math.exp(one.safety) for bad, one in enumerate(found))
    assert harm <= 1.0 + 1e-9
    assert safety <= 1.0 + 1e-9
    wins = sum(chance(bad, above) * math.exp(one.harm) for bad, one in enumerate(found))
    assert wins > 1.0 or part == 1.0


@pytest.mark.parametrize("control", [0.0, 0.02, 0.2, 0.6])
@pytest.mark.parametrize("margin", [0.01, 0.2])
def test_two_arms_are_worth_1_on_average_at_most(control: float, margin: float) -> None:
    """At the margin, where both null hypotheses hold."""
    pairs = list(product(range(SAMPLES + 1), repeat=2))
    found = against_control(
        [Counts(bad, SAMPLES) for bad, _ in pairs], [Counts(bad, SAMPLES) for _, bad in pairs], margin
    )
    weights = [chance(bad, control + margin) * chance(beside, control) for bad, beside in pairs]
    assert sum(w * math.exp(one.harm) for w, one in zip(weights, found, strict=True)) <= 1.0 + 1e-6
    assert sum(w * math.exp(one.safety) for w, one in zip(weights, found, strict=True)) <= 1.0 + 1e-6


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_quantiles_are_worth_1_on_average_at_most(quantile: float) -> None:
    """Both arms have the quantile at the edge between two buckets, the canaries' one octave higher."""
    pairs = list(product(range(SAMPLES + 1), repeat=2))
    canaries = np.array([buckets({47: SAMPLES - a, 48: a}) for a, _ in pairs])
    controls = np.array([buckets({43: SAMPLES - b, 44: b}) for _, b in pairs])
    found = of_quantiles(canaries, controls, quantile, 2.0)
    weights = [chance(a, 1.0 - quantile) * chance(b, 1.0 - quantile) for a, b in pairs]
    assert sum(w * math.exp(one.harm) for w, one in zip(weights, found, strict=True)) <= 1.0 + 1e-6
    assert sum(w * math.exp(one.safety) for w, one in zip(weights, found, strict=True)) <= 1.0 + 1e-6


def test_nothing_seen_is_evidence_of_nothing() -> None:
    nobody = Counts(0, 0)
    assert against_limit([nobody], 0.1) == [(0.0, 0.0)]
    assert against_control([nobody], [nobody], 0.1) == [(0.0, 0.0)]
    assert of_quantiles(np.zeros((1, 0)), np.zeros((1, 0)), 0.9, 1.2) == [(0.0, 0.0)]


def test_the_mean_of_e_values_is_taken_of_the_values_themselves() -> None:
    assert mean([math.log(8.0), math.log(2.0)]) == pytest.approx(math.log(5.0))
    assert mean([900.0, 0.0]) == pytest.approx(900.0 - math.log(2.0))


@pytest.mark.parametrize(
    ("canary", "control"),
    [
        ((0, 10**15), (0, 10**15)),
        ((10**15, 10**15), (0, 1)),
        ((1, 1), (10**15, 10**15)),
        ((5, 10), (0, 10**15)),
    ],
)
def test_evidence_stays_finite(canary: tuple[int, int], control: tuple[int, int]) -> None:
    for found in against_control([Counts(*canary)], [Counts(*control)], 0.02):
        assert math.isfinite(found.harm)
        assert math.isfinite(found.safety)
