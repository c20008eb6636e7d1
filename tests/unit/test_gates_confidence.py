"""The anytime-valid interval: its ends, its special cases, and values worked out by hand."""

from __future__ import annotations

import math

import pytest

from fleet.rollout.gates.confidence import (
    MOST_SAMPLES,
    difference_interval,
    log_evidence_against,
    proportion_interval,
)


def test_the_evidence_of_one_sample_is_worked_out_by_hand() -> None:
    # B(3/2, 1/2) / B(1/2, 1/2) = 1/2, so M_1(p) = (1/2) / p after one bad sample
    assert log_evidence_against(0.25, 1, 1) == pytest.approx(math.log(2.0))
    assert log_evidence_against(0.25, 0, 1) == pytest.approx(math.log(2.0 / 3.0))
    assert proportion_interval(1, 1, 0.05).lower == pytest.approx(0.025)
    assert proportion_interval(0, 1, 0.05).upper == pytest.approx(0.975)


def test_the_ends_are_where_the_evidence_reaches_its_limit() -> None:
    interval = proportion_interval(30, 1000, 0.01)
    for end in interval:
        assert log_evidence_against(end, 30, 1000) == pytest.approx(math.log(100.0), abs=1e-6)
    assert interval.lower < 0.03 < interval.upper


def test_nothing_observed_excludes_nothing() -> None:
    assert proportion_interval(0, 0, 0.01) == (0.0, 1.0)


def test_what_was_never_seen_bounds_one_side_only() -> None:
    assert proportion_interval(0, 500, 0.01).lower == 0.0
    assert 0.0 < proportion_interval(0, 500, 0.01).upper < 0.03
    assert proportion_interval(500, 500, 0.01).upper == 1.0


def test_good_and_bad_are_mirror_images() -> None:
    left, right = proportion_interval(30, 100, 0.01), proportion_interval(70, 100, 0.01)
    assert left.lower == pytest.approx(1.0 - right.upper, abs=1e-9)
    assert left.upper == pytest.approx(1.0 - right.lower, abs=1e-9)


def test_impossible_proportions_have_infinite_evidence_against_them() -> None:
    assert log_evidence_against(0.0, 1, 10) == math.inf
    assert log_evidence_against(1.0, 9, 10) == math.inf
    assert math.isfinite(log_evidence_against(0.0, 0, 10))


def test_it_is_no_narrower_than_an_interval_for_a_single_look() -> None:
    wald = 2.576 * math.sqrt(0.3 * 0.7 / 1000)
    interval = proportion_interval(300, 1000, 0.01)
    assert interval.upper - 0.3 > wald
    assert 0.3 - interval.lower > wald


def test_more_samples_than_the_logarithms_can_tell_apart_are_scaled_down() -> None:
    huge = proportion_interval(3 * 10**15, 10**17, 0.01)
    assert huge == proportion_interval(3 * MOST_SAMPLES // 100, MOST_SAMPLES, 0.01)
    assert huge.lower < 0.03 < huge.upper


def test_a_difference_is_bounded_by_the_ends_of_both() -> None:
    first, second = proportion_interval(70, 100, 0.005), proportion_interval(3, 100, 0.005)
    both = difference_interval(70, 100, 3, 100, 0.01)
    assert both == (first.lower - second.upper, first.upper - second.lower)
