"""The trial: a version on probation, answering live requests."""

from __future__ import annotations

import asyncio

from agent.hosting import Hosted
from agent.settings import Settings
from fleet.protocol.errors import MusterError, TrialFailed

CHECK_INTERVAL_S = 0.25


async def run_trial(hosted: Hosted, settings: Settings) -> None:
    """Watch a version that answers until its time is over and it answered enough.

    Args:
        hosted: The version.
        settings: How long, how much evidence, how many errors.

    Raises:
        TrialFailed: Too many inferences failed, one gave values that are not finite, or the evidence that the
            settings ask for did not come in time.
    """
    clock = asyncio.get_running_loop().time
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    errors = 0

    def on_failure(error: MusterError, not_finite: bool) -> None:
        nonlocal errors
        errors += 1
        if (not_finite or errors > settings.trial_maximum_errors) and not broken.done():
            broken.set_exception(TrialFailed(f"{errors} inference(s) failed during the trial: {error}"))

    start, answered_before = clock(), hosted.answered
    hosted.on_failure = on_failure
    try:
        while True:
            elapsed_s = clock() - start
            answered = hosted.answered - answered_before
            if elapsed_s >= settings.trial_s and answered >= settings.trial_minimum_predictions:
                return
            if elapsed_s >= max(settings.trial_limit_s, settings.trial_s):
                raise TrialFailed(
                    f"Only {answered} predictions came in {elapsed_s:.0f} s; "
                    f"{settings.trial_minimum_predictions} are needed."
                )
            await asyncio.wait([broken], timeout=min(CHECK_INTERVAL_S, settings.trial_s / 2))
            if broken.done():
                broken.result()
    finally:
        hosted.on_failure = None
        if broken.done():
            broken.exception()
