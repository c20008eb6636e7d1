"""The gate of a stage: PASS, FAIL, INCONCLUSIVE or ERROR, and a sentence that a person can check.

For each metric let D be the canaries' share of bad samples less the controls', and [lower, upper] its
anytime-valid interval (`fleet.rollout.confidence`). With the metric's margin m:

============  =================  ==========================================================================
FAIL          lower > m          the canaries are worse by more than the margin, beyond reasonable doubt
PASS          upper <= m         they are not
INCONCLUSIVE  otherwise          or an arm has fewer than ``minimum_samples``
ERROR         -                  the evidence cannot be judged: most of the canaries' windows contradict
                                 themselves, or a stored tally has more bad samples than samples
============  =================  ==========================================================================

Evidence of earlier stages' canaries goes on counting, but no stage passes on it alone: `HEARD_SHARE` of the
devices that the stage added must have been heard of.

The gate fails if any metric fails, else is in error, else inconclusive if any metric is, else passes. A
difference within the margin, however certain, never rolls back; one above it, however small a sample shows
it, never passes. Either mistake, at any of the rollout's looks, stages and metrics, has a probability of
``error_budget`` at most: each metric of each stage gets an equal share of it (union bound).

What the canaries are compared with:

===========  ======================================================================================
CONCURRENT   the controls' samples of the same stage, while there are controls
EARLIER      the controls' samples of the rollout's earlier stages, once everybody is a canary
LIMIT        the metric's absolute ``limit``, where there is neither: a first version, or all at once
===========  ======================================================================================
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fleet.rollout.confidence import Interval, difference_interval, proportion_interval
from fleet.rollout.evidence import Arm, Evidence, Tally
from fleet.rollout.plan import Metric, MetricGate, Plan

HEARD_SHARE = 0.5
"""Least share of a stage's devices that must have been heard of: the silent ones could all be harmed."""

MINIMUM_UNUSABLE = 3
"""So many contradicting windows, if they are the greater part, make the evidence unusable."""


class Outcome(StrEnum):
    """What a gate says."""

    PASS = "PASS"  # noqa: S105 - a verdict
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"


class Basis(StrEnum):
    """What the canaries were compared with, see the head of this file."""

    CONCURRENT = "concurrent"
    EARLIER = "earlier"
    LIMIT = "limit"


class MetricVerdict(msgspec.Struct, frozen=True):
    """One metric, judged.

    Attributes:
        metric: Which.
        outcome: PASS, FAIL or INCONCLUSIVE.
        basis: What it was compared with.
        canary: What the canaries reported.
        control: What the controls reported; nothing where the basis is LIMIT.
        lower: Lower end of the interval of the difference, or of the share where the basis is LIMIT.
        upper: Its upper end.
        bound: The margin, or the limit.
        sentence: For people.
    """

    metric: Metric
    outcome: Outcome
    basis: Basis
    canary: Tally
    control: Tally
    lower: float
    upper: float
    bound: float
    sentence: str


class Verdict(msgspec.Struct, frozen=True):
    """A stage, judged.

    Attributes:
        outcome: The whole.
        stage: Which stage, from 0.
        sentence: For people: the metrics that decided.
        metrics: Each metric, in the plan's order.
    """

    outcome: Outcome
    stage: int
    sentence: str
    metrics: tuple[MetricVerdict, ...]


def judge(
    plan: Plan, stages: tuple[Evidence, ...], *, has_control: bool, heard: int, expected: int
) -> Verdict:
    """Judge the last of the stages that have begun.

    Args:
        plan: Of the rollout.
        stages: Evidence of each stage that has begun.
        has_control: Whether devices that run another version have not been sent this one yet.
        heard: How many of the devices that the stage added have reported telemetry.
        expected: How many of them run the version.
    """
    number = len(stages) - 1
    if any(_is_impossible(tally) for e in stages for tally in (*e.canary.tallies, *e.control.tallies)):
        return Verdict(Outcome.ERROR, number, "ERROR: the stored evidence contradicts itself", ())
    alpha = plan.gate.error_budget / (len(plan.stages) * max(1, len(plan.gate.metrics)))
    metrics = tuple(
        _judge_metric(gate, place, stages, has_control=has_control, alpha=alpha)
        for place, gate in enumerate(plan.gate.metrics)
    )
    outcome, canary = _worst(metrics), stages[-1].canary
    if outcome is not Outcome.FAIL and _is_unusable(canary):
        sentence = (
            f"ERROR: {canary.unusable:,} of {canary.unusable + canary.windows:,} "
            "telemetry windows of the canaries contradict themselves"
        )
        return Verdict(Outcome.ERROR, number, sentence, metrics)
    if outcome is Outcome.PASS and metrics and heard < HEARD_SHARE * expected:
        sentence = f"INCONCLUSIVE: telemetry came from {heard:,} of the stage's {expected:,} devices"
        return Verdict(Outcome.INCONCLUSIVE, number, sentence, metrics)
    deciding = [metric.sentence for metric in metrics if metric.outcome is outcome]
    return Verdict(
        outcome, number, f"{outcome.value}: {'; '.join(deciding) or 'only installs are judged'}", metrics
    )


def installs_fail(failed: int, size: int, maximum_failed_share: float) -> str | None:
    """Return why a stage's installs fail the gate; None if they do not.

    The share is of the stage's whole cohort: once it is exceeded, no later success can mend it.

    Args:
        failed: Deployments of the stage that ended without the device running the version.
        size: Devices of the stage.
        maximum_failed_share: From the gate.
    """
    if failed <= maximum_failed_share * size:
        return None
    return (
        f"FAIL: {failed:,} of {size:,} deployments of the stage failed ({failed / size:.1%}); "
        f"{maximum_failed_share:.1%} may"
    )


def _judge_metric(
    gate: MetricGate, place: int, stages: tuple[Evidence, ...], *, has_control: bool, alpha: float
) -> MetricVerdict:
    canary = stages[-1].canary
    basis, control = _control(gate, place, stages, has_control=has_control)
    bad, against = canary.tallies[place], control.tallies[place]
    if basis is Basis.LIMIT:
        interval, bound = proportion_interval(bad.bad, bad.total, alpha), gate.limit
    else:
        interval = difference_interval(bad.bad, bad.total, against.bad, against.total, alpha)
        bound = gate.margin
    enough = bad.total >= gate.minimum_samples and (
        basis is Basis.LIMIT or against.total >= gate.minimum_samples
    )
    outcome = _outcome(interval, bound) if enough else Outcome.INCONCLUSIVE
    sentence = _comparison(gate, basis, _share(bad, canary, "canary", "canaries"), against, control)
    sentence += "; " + (_reading(basis, interval, bound) if enough else _shortage(gate))
    return MetricVerdict(gate.metric, outcome, basis, bad, against, *interval, bound, sentence)


def _control(
    gate: MetricGate, place: int, stages: tuple[Evidence, ...], *, has_control: bool
) -> tuple[Basis, Arm]:
    if has_control:
        return Basis.CONCURRENT, stages[-1].control
    earlier = Arm.empty(len(stages[-1].control.tallies))
    for evidence in stages[:-1]:
        earlier = earlier.plus(evidence.control)
    if earlier.tallies[place].total >= gate.minimum_samples:
        most = max(evidence.control.devices for evidence in stages[:-1])  # the same ones, stage after stage
        return Basis.EARLIER, msgspec.structs.replace(earlier, devices=most)
    return Basis.LIMIT, Arm.empty(len(earlier.tallies))


def _outcome(interval: Interval, bound: float) -> Outcome:
    if interval.lower > bound:
        return Outcome.FAIL
    return Outcome.PASS if interval.upper <= bound else Outcome.INCONCLUSIVE


def _worst(metrics: tuple[MetricVerdict, ...]) -> Outcome:
    outcomes = {metric.outcome for metric in metrics}
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        if outcome in outcomes:
            return outcome
    return Outcome.PASS


def _is_unusable(arm: Arm) -> bool:
    return arm.unusable >= MINIMUM_UNUSABLE and arm.unusable > arm.windows


def _is_impossible(tally: Tally) -> bool:
    return not 0 <= tally.bad <= tally.total


def _comparison(gate: MetricGate, basis: Basis, canary: str, against: Tally, control: Arm) -> str:
    text = f"{_title(gate)} {canary}"
    if basis is Basis.LIMIT:
        return f"{text}, no control to compare with"
    text += f" against {_share(against, control, 'control', 'controls')}"
    return text if basis is Basis.CONCURRENT else f"{text} during the earlier stages"


def _reading(basis: Basis, interval: Interval, bound: float) -> str:
    if basis is Basis.LIMIT:
        return f"share {interval.lower:.1%} to {interval.upper:.1%}, limit {bound:.1%}"
    low, high = 100 * interval.lower, 100 * interval.upper
    return f"difference {low:+.1f} to {high:+.1f} points, margin {100 * bound:.1f}"


def _shortage(gate: MetricGate) -> str:
    return f"each side needs {gate.minimum_samples:,}"


def _share(tally: Tally, arm: Arm, one: str, many: str) -> str:
    share = f"{tally.bad / tally.total:.1%}" if tally.total else "none"
    return f"{share} of {tally.total:,} on {arm.devices:,} {one if arm.devices == 1 else many}"


def _title(gate: MetricGate) -> str:
    match gate.metric:
        case Metric.SLOW:
            return f"slower than {gate.budget_us:g} µs"
        case Metric.UNSURE:
            return f"confidence below {gate.threshold:g}"
        case _:
            return gate.metric.value.replace("_", " ")
