"""Differences: each element of an answer by its own scale."""

from __future__ import annotations

import numpy as np

from fleet.protocol.difference import element_scales, scaled_differences

EXPECTED = np.array([[1000.0, 0.25], [-500.0, 0.5], [10.0, -0.5]])


def test_a_scale_is_the_greatest_answer_of_an_element_and_never_below_one() -> None:
    assert element_scales(EXPECTED).tolist() == [1000.0, 1.0]
    assert element_scales(np.zeros((2, 3, 4))).tolist() == [1.0] * 12


def test_a_great_element_does_not_hide_a_small_one() -> None:
    answers = EXPECTED + np.array([[1.0, 0.0], [0.0, 0.3], [0.0, 0.0]])
    np.testing.assert_allclose(scaled_differences(answers, EXPECTED), [0.001, 0.3, 0.0], atol=1e-12)


def test_what_is_no_number_is_no_small_difference() -> None:
    answers = EXPECTED.copy()
    answers[1, 0] = np.nan
    assert not (scaled_differences(answers, EXPECTED) <= 1e9).all()
