"""What the evidence of a metric is worth: what it is compared with, and its two e-values over all classes.

What the canaries are compared with:

===========  ======================================================================================
CONCURRENT   the controls' samples of the same stage, while there are controls
EARLIER      the controls' samples of the rollout's earlier stages, once everybody is a canary; because those
             are of another hour, harm must also be shown against the absolute limit
LIMIT        the metric's absolute ``limit``, where there is neither: a first version, or all at once
===========  ======================================================================================

How classes of devices share in the e-value of harm says `fleet.rollout.gates.gate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from fleet.rollout.gates.comparison import Basis, Compared, compare
from fleet.rollout.gates.eprocess import NOTHING, mean
from fleet.rollout.gates.evidence import Arm, Evidence
from fleet.rollout.plans.plan import Metric, MetricGate


class Weighed(NamedTuple):
    """What evidence is worth, of one metric.

    Attributes:
        whole: All classes together.
        classes: Each of several.
        harm: Logarithm of the e-value of harm, the classes considered: also before enough was heard of any,
            for what is the whole's at some looks and the mean at others is no e-process.
        safety: Likewise of safety.
        leaning: The classes that lean to harm.
    """

    whole: Compared
    classes: list[Compared]
    harm: float
    safety: float
    leaning: list[Compared]


def basis_of(gate: MetricGate, place: int, stages: tuple[Evidence, ...], *, has_control: bool) -> Basis:
    """Return what the canaries are compared with; see the head of this file.

    Args:
        gate: Of the metric.
        place: Of the metric in the arms' tallies.
        stages: Evidence of each stage that has begun.
        has_control: Whether devices that run another version have not been sent this one yet.
    """
    if gate.metric is Metric.SHADOW_DISAGREEMENT:
        return Basis.LIMIT
    if has_control:
        return Basis.CONCURRENT
    heard = sum(evidence.control.tallies[place].total for evidence in stages[:-1])
    return Basis.EARLIER if heard >= gate.minimum_samples else Basis.LIMIT


def groups_of(stages: tuple[Evidence, ...], grouped: tuple[bool, bool]) -> list[tuple[Evidence, ...]]:
    """Return what each group of devices said in each stage, see `fleet.rollout.gates.groups`.

    Args:
        stages: Evidence of each stage that has begun.
        grouped: Whether there are enough canaries, and controls, to leave any group of them out; of a side of
            a few, nobody is in a group.
    """
    if not any(grouped):
        return []
    numbers = sorted({group for stage in stages for group in stage.groups})
    nothing = Evidence.empty(len(stages[-1].canary.tallies))
    return [
        tuple(stage.groups.get(number, nothing).of_arms(*grouped) for stage in stages) for number in numbers
    ]


def weigh(
    gate: MetricGate,
    place: int,
    stages: tuple[Evidence, ...],
    basis: Basis,
    *,
    most_classes: int,
    groups: Sequence[tuple[Evidence, ...]] = (),
) -> list[Weighed]:
    """Return what the evidence is worth; if groups are given, what it is worth without each of them.

    Args:
        gate: Of the metric.
        place: Of the metric in the arms' tallies.
        stages: Evidence of each stage that has begun.
        basis: What to compare with, from `basis_of`.
        most_classes: How many classes of devices there are, also those that nothing was heard of yet.
        groups: From `groups_of`.
    """
    evidence = _compared(gate, basis, stages)
    left_out = [_compared(gate, basis, group) for group in groups]
    most = max(most_classes, len(evidence.canary.strata.keys() | evidence.control.strata.keys()))
    return [_weighed(found, most) for found in compare(gate, place, basis, evidence, left_out)]


def _weighed(found: list[Compared], most_classes: int) -> Weighed:
    whole, *classes = found
    harm, safety = whole.evidences
    if most_classes > 1:
        unheard = [NOTHING.harm] * (most_classes - len(classes))
        harm = mean([harm, mean([*(one.evidences.harm for one in classes), *unheard])])
    leaning = [one for one in classes if one.evidences.harm > max(0.0, one.evidences.safety)]
    return Weighed(whole, classes, harm, safety, leaning)


def _compared(gate: MetricGate, basis: Basis, stages: tuple[Evidence, ...]) -> Evidence:
    """Return the evidence that is compared: of the current stage, or as the basis says."""
    if basis is Basis.CONCURRENT:
        return stages[-1]
    return Evidence(_canary(gate, stages), _control(basis, stages))


def least(gate: MetricGate, basis: Basis, found: Weighed, others: list[Weighed]) -> Weighed:
    """Return what stands of the whole whichever group is left out, see `fleet.rollout.gates.groups`."""
    harm, safety, leaning = found.harm, found.safety, found.leaning
    for one in others:
        enough = is_enough(gate, basis, one.whole)
        harm, safety = min(harm, one.harm * enough), min(safety, one.safety * enough)
        leaning = leaning or one.leaning
    without = [{one.name: one.evidences.harm for one in other.classes} for other in others]
    classes = [_least_of_class(one, without) for one in found.classes]
    return found._replace(classes=classes, harm=harm, safety=safety, leaning=leaning)


def _least_of_class(of_all: Compared, without: list[dict[str, float]]) -> Compared:
    """Return a class with what stands of its harm: nothing where too little is left without a group.

    Args:
        of_all: The class.
        without: The harm of each class that is compared without one group, and without another.
    """
    harms = [of_class.get(of_all.name, NOTHING.harm) for of_class in without]
    return of_all._replace(evidences=of_all.evidences._replace(harm=min([of_all.evidences.harm, *harms])))


def is_enough(gate: MetricGate, basis: Basis, whole: Compared) -> bool:
    """Whether both sides have as many samples as the metric needs."""
    return whole.canary.tally.total >= gate.minimum_samples and (
        basis is Basis.LIMIT or whole.control.tally.total >= gate.minimum_samples
    )


def _canary(gate: MetricGate, stages: tuple[Evidence, ...]) -> Arm:
    """Return the canaries' arm; a device has one shadow, so of those every stage's count."""
    canary = stages[-1].canary
    if gate.metric is not Metric.SHADOW_DISAGREEMENT:
        return canary
    for evidence in stages[:-1]:
        of_shadows = _without_devices(evidence.canary)
        canary = canary.plus(of_shadows)
    return canary


def _without_devices(arm: Arm) -> Arm:
    """Return an arm whose devices are counted elsewhere."""
    strata = {name: _without_devices(stratum) for name, stratum in arm.strata.items()}
    return msgspec.structs.replace(arm, devices=0, windows=0, unusable=0, strata=strata)


def _control(basis: Basis, stages: tuple[Evidence, ...]) -> Arm:
    """Return the controls of earlier stages; nothing where there is nobody to compare with."""
    earlier = Arm.empty(len(stages[-1].control.tallies))
    if basis is Basis.LIMIT:
        return earlier
    for evidence in stages[:-1]:
        earlier = earlier.plus(evidence.control)
    most = max(evidence.control.devices for evidence in stages[:-1])  # the same ones, stage after stage
    return msgspec.structs.replace(earlier, devices=most)
