"""The verdict on a trial, without a clock: every row of the table, and its edges."""

from __future__ import annotations

import pytest

from agent.life.trial import Failures, judge_trial
from agent.settings import Settings
from fleet.protocol.errors import TrialFailed

TRIAL = Settings(trial_s=60.0, trial_limit_s=600.0, trial_minimum_predictions=10, trial_maximum_errors=2)
NONE = Failures()


@pytest.mark.parametrize(
    ("elapsed_s", "predictions", "failures", "passed"),
    [
        (59.9, 1000, NONE, False),
        (60.0, 9, NONE, False),
        (60.0, 10, NONE, True),
        (599.9, 9, NONE, False),
        (600.0, 10, NONE, True),
        (60.0, 10, Failures(2, last="It failed."), True),
    ],
)
def test_a_trial_passes_on_time_and_evidence_alone(
    elapsed_s: float, predictions: int, failures: Failures, passed: bool
) -> None:
    assert judge_trial(elapsed_s, predictions, failures, TRIAL) is passed


@pytest.mark.parametrize(
    ("elapsed_s", "predictions", "failures", "why"),
    [
        (0.0, 0, Failures(3, last="It failed."), r"^3 inference\(s\) failed during the trial: It failed\.$"),
        (60.0, 10, Failures(3, last="It failed."), r"^3 inference"),
        (0.0, 1000, Failures(1, not_finite=True, last="It was NaN."), r"^1 inference.*NaN"),
        (600.0, 9, NONE, r"^Only 9 predictions came in 600 s; 10 are needed\.$"),
        (600.0, 0, Failures(3, last="It failed."), r"^3 inference"),
    ],
)
def test_a_trial_fails_on_a_broken_limit_or_for_want_of_evidence(
    elapsed_s: float, predictions: int, failures: Failures, why: str
) -> None:
    with pytest.raises(TrialFailed, match=why):
        judge_trial(elapsed_s, predictions, failures, TRIAL)


def test_a_limit_below_the_time_does_not_end_a_trial_early() -> None:
    odd = Settings(trial_s=60.0, trial_limit_s=5.0, trial_minimum_predictions=1)
    assert judge_trial(59.0, 0, NONE, odd) is False
    with pytest.raises(TrialFailed):
        judge_trial(60.0, 0, NONE, odd)
    assert judge_trial(60.0, 1, NONE, odd) is True
