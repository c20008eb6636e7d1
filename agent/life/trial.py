"""The trial: a version on probation, answering live requests, and the watchdog that ends it.

`judge_trial` decides, from what was seen so far; `run_trial` only watches and waits. Nothing here needs the
network. A broken limit counts before everything else, and too little evidence is never a success:

==================================================================  ================================
seen                                                                verdict
==================================================================  ================================
an answer that is not finite                                        failed, ``trial_not_finite``
an inference that took longer than the timeout                      failed, ``trial_hung``
more errors than allowed                                            failed, ``trial_failed``
the process took more memory than the bundle states and is allowed  failed, ``trial_memory_exceeded``
the device has less memory left than must be                        failed, ``trial_memory_exceeded``
requests take longer than their budget                              failed, ``trial_too_slow``
other answers to the golden inputs than in the self-test            failed, ``trial_golden_failed``
the time is over and enough was answered                            passed
the limit is over and too little was answered                       failed, ``trial_failed``
anything else                                                       not yet
==================================================================  ================================

The golden inputs are run at intervals and once at the end. That takes time from requests, so the interval is
made longer where they take long: they have a tenth of the time at most.

A version is too slow by the 90th percentile of its requests, which a disturbance of a few does not move. It
is compared with the version before it only where both were asked alike: requests with as many samples, within
a factor of two. Below `LATENCY_FLOOR_US` nothing is slower than the version before it: there, what else the
device does makes the greater difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from agent.hosting.hosted import Hosted
from agent.life.footprint import Footprint, check_growth, measure_footprint
from agent.settings import Settings
from agent.telemetry.window import Pace
from fleet.protocol.errors import (
    InferenceFailed,
    InferenceNotFinite,
    InferenceTimedOut,
    SelfTestFailed,
    SelfTestTimedOut,
    TrialFailed,
    TrialGoldenFailed,
    TrialHung,
    TrialNotFinite,
    TrialTooSlow,
)
from fleet.protocol.latency import BUCKETS_PER_OCTAVE, quantile_us

CHECK_INTERVAL_S = 0.25
SLOW_QUANTILE = 0.9
SLOW_REQUESTS = 20
"""Fewest requests by which a version is called slow."""
LATENCY_FLOOR_US = 1000.0
ALIKE_FACTOR = 2.0
GOLDEN_SHARE = 0.1


class Failures(NamedTuple):
    """The inferences that failed since the trial began.

    Attributes:
        errors: How many.
        not_finite: Whether any of them gave values that are not finite.
        timed_out: Whether any of them took too long.
        last: What was wrong with the last.
    """

    errors: int = 0
    not_finite: bool = False
    timed_out: bool = False
    last: str = ""

    def plus(self, error: InferenceFailed) -> Failures:
        """Return the failures with one more."""
        return Failures(
            self.errors + 1,
            self.not_finite or isinstance(error, InferenceNotFinite),
            self.timed_out or isinstance(error, InferenceTimedOut),
            str(error),
        )


class Seen(NamedTuple):
    """What was seen of a version on trial.

    Attributes:
        elapsed_s: Time since the trial began.
        predictions: Answers given since.
        failures: Inferences that failed since.
        pace: How fast it answers.
        before: How fast the version before it answered; None if that is not known.
        footprint: The memory now.
        footprint_before: As it was before the version was loaded.
        stated_memory_bytes: What the bundle states that the version needs.
    """

    elapsed_s: float
    predictions: int
    failures: Failures
    pace: Pace
    before: Pace | None
    footprint: Footprint
    footprint_before: Footprint
    stated_memory_bytes: int


def judge_trial(seen: Seen, settings: Settings) -> bool:
    """Tell whether a version has passed its trial.

    Args:
        seen: What was seen so far.
        settings: How long, how much evidence, and the limits.

    Returns:
        True if it has passed, False if that cannot be said yet.

    Raises:
        TrialFailed: It has failed; the class tells by what.
    """
    _check_failures(seen.failures, settings)
    check_growth(
        seen.footprint,
        seen.footprint_before,
        allowed_bytes=seen.stated_memory_bytes + settings.trial_memory_limit_bytes,
        reserve_bytes=settings.trial_reserve_memory_bytes,
    )
    _check_pace(seen.pace, seen.before, settings)
    if seen.elapsed_s >= settings.trial_s and seen.predictions >= settings.trial_minimum_predictions:
        return True
    if seen.elapsed_s >= max(settings.trial_limit_s, settings.trial_s):
        raise TrialFailed(
            f"Only {seen.predictions} predictions came in {seen.elapsed_s:.0f} s; "
            f"{settings.trial_minimum_predictions} are needed."
        )
    return False


def _check_failures(failures: Failures, settings: Settings) -> None:
    told = f"{failures.errors} inference(s) failed during the trial: {failures.last}"
    if failures.not_finite:
        raise TrialNotFinite(told)
    if failures.timed_out:
        raise TrialHung(told)
    if failures.errors > settings.trial_maximum_errors:
        raise TrialFailed(told)


def _check_pace(pace: Pace, before: Pace | None, settings: Settings) -> None:
    """Check how fast a version answers; see the head of this file."""
    taken_us = _surely_taken_us(pace)
    told = f"One request in ten takes {taken_us / 1000:.3g} ms or more"
    limit_us = settings.trial_latency_limit_ms * 1000
    if 0 < limit_us < taken_us:
        raise TrialTooSlow(f"{told}; {settings.trial_latency_limit_ms:g} ms are allowed.")
    if before is None or before.requests < SLOW_REQUESTS or not _are_alike(pace, before):
        return
    before_us = quantile_us(before.latency, SLOW_QUANTILE) or 0.0
    budget_us = max(LATENCY_FLOOR_US, settings.trial_latency_factor * before_us)
    if settings.trial_latency_factor > 0 and taken_us > budget_us:
        raise TrialTooSlow(f"{told}, the version before it {before_us / 1000:.3g} ms.")


def _surely_taken_us(pace: Pace) -> float:
    """Return what one request in ten takes at least; 0 while too few were answered to say."""
    if pace.requests < SLOW_REQUESTS:
        return 0.0
    upper_us = quantile_us(pace.latency, SLOW_QUANTILE) or 0.0
    return float(upper_us / 2 ** (1 / BUCKETS_PER_OCTAVE))  # the lower edge of its bucket


def _are_alike(pace: Pace, before: Pace) -> bool:
    """Tell whether the requests of two versions had about as many samples each."""
    if pace.requests == 0 or before.requests == 0:
        return False
    now, then = pace.predictions / pace.requests, before.predictions / before.requests
    return max(now, then) <= ALIKE_FACTOR * min(now, then)


async def run_trial(hosted: Hosted, before: Hosted | None, settings: Settings) -> None:
    """Watch a version that answers until its trial is judged.

    Args:
        hosted: The version.
        before: The one that answered before it, if it is still in memory.
        settings: How long, how much evidence, and the limits.

    Raises:
        TrialFailed: See `judge_trial`.
    """
    clock = asyncio.get_running_loop().time
    watch = _Watch(hosted, before, settings, clock)
    golden_due_s = clock() + settings.trial_golden_interval_s
    hosted.on_failure = watch.note_failure
    try:
        while not watch.has_passed():
            if clock() >= golden_due_s:
                begun_s = clock()
                await _run_golden_inputs(hosted)
                rest_s = (clock() - begun_s) * (1 / GOLDEN_SHARE - 1)
                golden_due_s = clock() + max(settings.trial_golden_interval_s, rest_s)
            watch.failed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(CHECK_INTERVAL_S, settings.trial_s / 2)):
                    await watch.failed.wait()
        await _run_golden_inputs(hosted)
        watch.has_passed()  # nothing was broken meanwhile
    finally:
        hosted.on_failure = None


class _Watch:
    """What is seen of a version from the beginning of its trial.

    Attributes:
        failed: Set when an inference fails.
    """

    def __init__(
        self, hosted: Hosted, before: Hosted | None, settings: Settings, clock: Callable[[], float]
    ) -> None:
        self.failed = asyncio.Event()
        self._hosted = hosted
        self._settings = settings
        self._clock = clock
        self._failures = Failures()
        self._started_s, self._answered_before = clock(), hosted.answered
        self._pace_before = None if before is None else before.counter.recent()

    def note_failure(self, error: InferenceFailed) -> None:
        self._failures = self._failures.plus(error)
        self.failed.set()

    def has_passed(self) -> bool:
        """Judge the trial by what was seen so far; raises `TrialFailed`."""
        self._hosted.tell_late_run()
        seen = Seen(
            elapsed_s=self._clock() - self._started_s,
            predictions=self._hosted.answered - self._answered_before,
            failures=self._failures,
            pace=self._hosted.counter.recent(),
            before=self._pace_before,
            footprint=measure_footprint(),
            footprint_before=self._hosted.footprint_before,
            stated_memory_bytes=self._hosted.stated_memory_bytes,
        )
        return judge_trial(seen, self._settings)


async def _run_golden_inputs(hosted: Hosted) -> None:
    try:
        await hosted.self_test()
    except SelfTestTimedOut as error:
        raise TrialHung(f"During the trial: {error}") from error
    except SelfTestFailed as error:
        raise TrialGoldenFailed(f"During the trial: {error}") from error
