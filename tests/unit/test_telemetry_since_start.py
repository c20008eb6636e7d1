"""Latency as Prometheus gets it says of real durations what is true of them."""

from __future__ import annotations

import numpy as np
import pytest

from fleet.protocol.latency import LAST_BUCKET, count_durations
from hub.telemetry.since_start import LE_S, Answers


def _answers(durations_s: np.ndarray) -> Answers:
    latency = np.zeros(LAST_BUCKET + 1, dtype=np.int64)
    for bucket, number in count_durations(durations_s * 1e6).items():
        latency[bucket] = number
    return Answers(latency=latency)


def test_as_many_answers_are_below_an_edge_as_took_less() -> None:
    durations_s = np.random.default_rng(4).lognormal(-6.0, 2.0, 5000)
    answers = _answers(durations_s)
    assert LE_S[0] == pytest.approx(16e-6)
    assert LE_S[-1] == pytest.approx(2**24 / 1e6)
    assert answers.below_edges.tolist() == [int((durations_s < edge).sum()) for edge in LE_S]


@pytest.mark.parametrize("typical_s", [1e-5, 1e-3, 1.0])
def test_the_sum_is_within_nine_percent(typical_s: float) -> None:
    durations_s = typical_s * np.random.default_rng(5).uniform(0.5, 2.0, 300)
    assert _answers(durations_s).seconds == pytest.approx(durations_s.sum(), rel=0.09)


def test_both_together_are_the_sum() -> None:
    left, right = _answers(np.array([0.001, 0.002])), _answers(np.array([5.0]))
    both = left.plus(right)
    assert both.latency.sum() == 3
    assert both.seconds == pytest.approx(left.seconds + right.seconds)
