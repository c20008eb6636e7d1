"""The gate of a stage: PASS, FAIL, INCONCLUSIVE or ERROR, and a sentence that a person can check.

For each metric there are two e-values (`eprocess`), of harm and of safety: evidence that the
canaries are worse than the controls by more than the metric's margin, and that they are not. With alpha the
metric's part of the error budget:

============  ==================  =========================================================================
FAIL          harm >= 1 / alpha   the canaries are worse by more than the margin, beyond reasonable doubt
PASS          safety >= 1 / alpha they are not, and no class of devices leans to harm
INCONCLUSIVE  otherwise           or an arm has fewer than ``minimum_samples``
ERROR         (of ``input_drift`` the evidence cannot be judged: most of the canaries' windows contradict
              in place of FAIL)   themselves, a stored tally is one that no windows add up to, or the sides do
                                  not see the same inputs
============  ==================  =========================================================================

**The error budget.** Each metric of each stage, and the installs of each stage, get an equal share of
``error_budget`` (union bound over the `parts`; classes of devices share their metric's, being averaged): a
harmless version is rolled back, at any look of any stage, with a probability of ``error_budget`` at most, and
one harmful in the whole passes with no more than that, since of one metric's two null hypotheses only one
can be wrong to reject.

**Installs** have no control, for who was not sent the version installs nothing: they are held against
``maximum_failed_share``, see `fleet.rollout.installs`.

**Inputs** are a check of the comparison itself. No version chooses what it is asked; if canaries and controls
see different inputs, whatever else differs may come from there, and sending the old version would mend
nothing. So a person has to look.

**Stages judged by installs** bring the version to those who were controls until then. PASS needs no proof of
safety there, which nobody would be left to give; proof of harm rolls back as ever.

**Classes.** With more than one class of devices (`fleet.rollout.gates.comparison`) the e-value of harm is the
mean of the whole's and of the mean over the classes: a mean of e-values is one, so harm in one class only
is found at the price of a factor of twice the number of classes, and nothing of the budget. A class that
too little was heard of counts with 1, so that the mean is of the same classes at every look; it is looked at
from the first one on, for the larger of the whole's and the mean would be no e-value. Which are named follows
e-BH (Wang and Ramdas 2022, "False discovery rate control with e-values"): the k of K classes with the largest
e-values, for the largest k at which each of them is at least K / (k alpha). A class leans to harm if its
e-value of harm exceeds 1 and its e-value of safety; that holds a PASS back and spends no budget.

**A device that lies.** FAIL and PASS must stand whichever group of devices is left out (`groups`): where the
e-values are enough, the least of all of it and of it without each group has to be, and so has that of a class
that is named. A class that leans to harm in any of them holds a PASS back.

Evidence of earlier stages' canaries goes on counting, but no stage passes on it alone: `HEARD_SHARE` of the
devices that the stage added must have been heard of.

The gate fails if any metric fails, else is in error, else inconclusive if any metric is, else passes. A
difference within the margin, however certain, never rolls back; one above it, however small a sample shows
it, never passes.

What the canaries are compared with says `fleet.rollout.gates.weighing`.
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from fleet.rollout.gates import sentences
from fleet.rollout.gates.comparison import Basis, Compared
from fleet.rollout.gates.counts import WHOLE
from fleet.rollout.gates.eprocess import e_value
from fleet.rollout.gates.evidence import Arm, Evidence, Tally
from fleet.rollout.gates.weighing import basis_of, groups_of, is_enough, least, weigh
from fleet.rollout.plans.plan import JudgedBy, Metric, MetricGate, Plan

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


class MetricVerdict(msgspec.Struct, frozen=True):
    """One metric, judged.

    Attributes:
        metric: Which.
        outcome: PASS, FAIL or INCONCLUSIVE; ERROR if the sides see different inputs.
        basis: What it was compared with.
        canary: What the canaries reported; of the class that decided, if one did.
        control: What the controls reported, likewise; nothing where the basis is LIMIT.
        sentence: For people.
        harm: The e-value of harm; the least, if a group of devices may be left out.
        safety: The e-value of safety, likewise.
        needed: How large one of them must be.
        classes: The classes of devices that decided; empty if it was the whole.
    """

    metric: Metric
    outcome: Outcome
    basis: Basis
    canary: Tally
    control: Tally
    sentence: str
    harm: float = 1.0
    safety: float = 1.0
    needed: float = 0.0
    classes: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """A stage, judged.

    Attributes:
        outcome: The whole.
        stage: Which stage, from 0.
        sentence: For people: the metrics that decided.
        metrics: Each metric, in the plan's order.
        error_budget: The plan's, for the whole rollout.
        parts: In how many equal parts it is split; one of them is each e-value's.
    """

    outcome: Outcome
    stage: int
    sentence: str
    metrics: tuple[MetricVerdict, ...]
    error_budget: float = 0.0
    parts: int = 0


def parts(plan: Plan) -> int:
    """Return in how many parts the error budget of a plan is split, see the head of this file."""
    tests = len(plan.gate.metrics) + (plan.gate.maximum_failed_share > 0.0)
    return len(plan.stages) * max(1, tests)


def judge(
    plan: Plan,
    stages: tuple[Evidence, ...],
    *,
    has_control: bool,
    heard: int,
    expected: int,
    classes: int = 0,
    grouped: tuple[bool, bool] = (True, True),
) -> Verdict:
    """Judge the last of the stages that have begun.

    Args:
        plan: Of the rollout.
        stages: Evidence of each stage that has begun.
        has_control: Whether devices that run another version have not been sent this one yet.
        heard: How many of the devices that the stage added have reported telemetry.
        expected: How many of them run the version.
        classes: How many classes of devices the rollout has, also those that nothing was heard of yet.
        grouped: Whether there are enough canaries, and controls, to leave any group of them out.
    """
    number, alpha = len(stages) - 1, plan.gate.error_budget / parts(plan)

    def say(outcome: Outcome, sentence: str, metrics: tuple[MetricVerdict, ...]) -> Verdict:
        text = f"{outcome.value}: {sentence}"
        if outcome is Outcome.INCONCLUSIVE:
            text += sentences.noised(stages[-1])
        return Verdict(outcome, number, text, metrics, plan.gate.error_budget, parts(plan))

    every = [*stages, *stages[-1].spans.values()]
    if not all(_is_possible(arm) for part in every for arm in (part.canary, part.control)):
        return say(Outcome.ERROR, "the stored evidence contradicts itself", ())
    metrics = tuple(
        _judge_metric(
            gate, place, stages, has_control=has_control, alpha=alpha, most_classes=classes, grouped=grouped
        )
        for place, gate in enumerate(plan.gate.metrics)
    )
    outcome, canary = _worst(metrics), stages[-1].canary
    if outcome is not Outcome.FAIL and _is_unusable(canary):
        told = f"{canary.unusable:,} of {canary.unusable + canary.windows:,}"
        return say(Outcome.ERROR, f"{told} telemetry windows of the canaries contradict themselves", metrics)
    if outcome is not Outcome.FAIL and plan.stages[number].judged_by is JudgedBy.INSTALLS:
        return say(Outcome.PASS, "the stage is judged by installs, and nothing proves harm", metrics)
    if outcome is Outcome.PASS and metrics and heard < HEARD_SHARE * expected:
        told = f"telemetry came from {heard:,} of the stage's {expected:,} devices"
        return say(Outcome.INCONCLUSIVE, told, metrics)
    deciding = [metric.sentence for metric in metrics if metric.outcome is outcome]
    return say(outcome, "; ".join(deciding) or "only installs are judged", metrics)


def _judge_metric(
    gate: MetricGate,
    place: int,
    stages: tuple[Evidence, ...],
    *,
    has_control: bool,
    alpha: float,
    most_classes: int,
    grouped: tuple[bool, bool],
) -> MetricVerdict:
    basis = basis_of(gate, place, stages, has_control=has_control)
    (found,) = weigh(gate, place, stages, basis, most_classes=most_classes)
    needed, deciding, outcome = 1.0 / alpha, [found.whole], Outcome.INCONCLUSIVE
    enough = is_enough(gate, basis, found.whole)
    if enough and max(found.harm, found.safety) >= math.log(needed):
        groups = groups_of(stages, grouped)
        others = weigh(gate, place, stages, basis, most_classes=most_classes, groups=groups) if groups else []
        found = least(gate, basis, found, others)
    if not enough:
        reading = sentences.shortage(gate)
    elif found.harm >= math.log(needed):
        is_input = gate.metric is Metric.INPUT_DRIFT
        deciding = _harmed(found.classes, alpha) or deciding
        outcome = Outcome.ERROR if is_input else Outcome.FAIL
        reading = sentences.harm(gate, basis, found.harm, needed)
    elif found.safety >= math.log(needed) and found.leaning:
        deciding = sorted(found.leaning, key=lambda one: -one.evidences.harm)[:1]
        reading = sentences.leaning(deciding[0])
    elif found.safety >= math.log(needed):
        outcome = Outcome.PASS
        reading = sentences.safety(gate, basis, found.safety, needed)
    else:
        reading = sentences.undecided(gate, basis, found.harm, found.safety, needed)
    shown = deciding[0]
    return MetricVerdict(
        metric=gate.metric,
        outcome=outcome,
        basis=basis,
        canary=shown.canary.tally,
        control=shown.control.tally,
        harm=e_value(found.harm),
        safety=e_value(found.safety),
        needed=needed,
        classes=tuple(one.name for one in deciding if one.name != WHOLE),
        sentence=f"{sentences.comparison(gate, basis, shown, len(deciding))}; {reading}",
    )


def _harmed(classes: list[Compared], alpha: float) -> list[Compared]:
    """Return the classes that e-BH names, the worst first; none if it names all of several."""
    ranked = sorted(classes, key=lambda one: -one.evidences.harm)
    count = max(
        (
            k
            for k, one in enumerate(ranked, start=1)
            if one.evidences.harm >= math.log(len(ranked) / (k * alpha))
        ),
        default=0,
    )
    return ranked[:count] if count < len(ranked) else []


def _worst(metrics: tuple[MetricVerdict, ...]) -> Outcome:
    outcomes = {metric.outcome for metric in metrics}
    for outcome in (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE):
        if outcome in outcomes:
            return outcome
    return Outcome.PASS


def _is_unusable(arm: Arm) -> bool:
    return arm.unusable >= MINIMUM_UNUSABLE and arm.unusable > arm.windows


def _is_possible(arm: Arm) -> bool:
    """Return whether windows can have added up to this; a class has no more than the whole."""
    if min(arm.devices, arm.windows, arm.unusable) < 0:
        return False
    if not all(tally.is_possible for tally in arm.tallies):
        return False
    for place, tally in enumerate(arm.tallies):
        inside = [stratum.tallies[place] for stratum in arm.strata.values()]
        if sum(one.total for one in inside) > tally.total or sum(one.bad for one in inside) > tally.bad:
            return False
    return all(_is_possible(stratum) for stratum in arm.strata.values())
