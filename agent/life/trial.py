"""The trial: a version on probation, answering live requests.

`judge_trial` decides, from what was seen so far; `run_trial` only watches and waits. A broken limit counts
before everything else, and too little evidence is never a success:

=========================================================  =======================
seen                                                       verdict
=========================================================  =======================
an answer that is not finite, or more errors than allowed  failed
the time is over and enough was answered                   passed
the limit is over and too little was answered              failed
anything else                                              not yet
=========================================================  =======================
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple

from agent.hosting import Hosted
from agent.settings import Settings
from fleet.protocol.errors import InferenceFailed, InferenceNotFinite, TrialFailed

CHECK_INTERVAL_S = 0.25


class Failures(NamedTuple):
    """The inferences that failed since the trial began.

    Attributes:
        errors: How many.
        not_finite: Whether any of them gave values that are not finite.
        last: What was wrong with the last.
    """

    errors: int = 0
    not_finite: bool = False
    last: str = ""


def judge_trial(elapsed_s: float, predictions: int, failures: Failures, settings: Settings) -> bool:
    """Tell whether a version has passed its trial.

    Args:
        elapsed_s: Time since the trial began.
        predictions: Answers given since.
        failures: Inferences that failed since.
        settings: How long, how much evidence, how many errors.

    Returns:
        True if it has passed, False if that cannot be said yet.

    Raises:
        TrialFailed: It has failed.
    """
    if failures.not_finite or failures.errors > settings.trial_maximum_errors:
        raise TrialFailed(f"{failures.errors} inference(s) failed during the trial: {failures.last}")
    if elapsed_s >= settings.trial_s and predictions >= settings.trial_minimum_predictions:
        return True
    if elapsed_s >= max(settings.trial_limit_s, settings.trial_s):
        raise TrialFailed(
            f"Only {predictions} predictions came in {elapsed_s:.0f} s; "
            f"{settings.trial_minimum_predictions} are needed."
        )
    return False


async def run_trial(hosted: Hosted, settings: Settings) -> None:
    """Watch a version that answers until its trial is judged.

    Args:
        hosted: The version.
        settings: How long, how much evidence, how many errors.

    Raises:
        TrialFailed: See `judge_trial`.
    """
    clock = asyncio.get_running_loop().time
    failures = Failures()
    failed = asyncio.Event()

    def on_failure(error: InferenceFailed) -> None:
        nonlocal failures
        not_finite = failures.not_finite or isinstance(error, InferenceNotFinite)
        failures = Failures(failures.errors + 1, not_finite, str(error))
        failed.set()

    started_s, answered_before = clock(), hosted.answered
    hosted.on_failure = on_failure
    try:
        while not judge_trial(clock() - started_s, hosted.answered - answered_before, failures, settings):
            failed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(CHECK_INTERVAL_S, settings.trial_s / 2)):
                    await failed.wait()
    finally:
        hosted.on_failure = None
