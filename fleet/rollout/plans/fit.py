"""What is refused of a plan for the devices that there are; which of them other rollouts have: `claims`.

Pure: the hub reads who matches, and asks here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.drift.profile import ReferenceProfile
from fleet.protocol.errors import InvalidPlan
from fleet.rollout.plans.plan import MOST_HELD_BACK, JudgedBy, Membership, Metric, Plan


def check_members(plan: Plan, version: int, matching: int, running: int) -> None:
    """Check that there is somebody to bring a version to when the rollout is drawn up.

    That holds of a continuous rollout too: its stages are shares of those whom it begins with.

    Args:
        plan: The plan.
        version: The version.
        matching: How many devices the plan means.
        running: How many of them are to run the version already.

    Raises:
        InvalidPlan: There is nobody.
    """
    field = "" if plan.target is None else "target"
    if matching == 0:
        if plan.target is None:
            raise InvalidPlan(f"There is no device to bring version {version} to.")
        is_snapshot = plan.membership is Membership.SNAPSHOT
        raise InvalidPlan(
            "target: no device matches, and a snapshot takes in nobody later."
            if is_snapshot
            else "target: no device matches; a continuous rollout takes in more, but begins with one.",
            remedy="Look with `muster fleet devices --where`.",
            field=field,
        )
    if running == matching:
        all_of_them = "The one" if matching == 1 else f"All {matching:,}"
        matching_devices = f"{'' if plan.target is None else 'matching '}device{'s' * (matching != 1)}"
        runs = "runs" if matching == 1 else "run"
        raise InvalidPlan(
            f"{'target: ' * bool(field)}{all_of_them} {matching_devices} {runs} version {version} already.",
            field=field,
        )


def check_sizes(plan: Plan, sizes: Sequence[int]) -> None:
    """Check that each stage has the devices that it is to be judged by.

    Args:
        plan: The plan.
        sizes: How many devices each stage adds, one for each stage.

    Raises:
        InvalidPlan: A stage of a snapshot adds nobody, or fewer than its ``minimum_devices``; or one that is
            judged by installs alone adds too many.
    """
    most = MOST_HELD_BACK * sum(sizes)
    if plan.stages[-1].judged_by is JudgedBy.INSTALLS and sizes[-1] > most:
        raise InvalidPlan(
            f"Stage {len(sizes)}: it is judged by installs alone and adds {sizes[-1]:,} of {sum(sizes):,} "
            f"devices; {MOST_HELD_BACK:.0%} may.",
            remedy="Bring the version to more devices under the gate before.",
            field=f"stages[{len(sizes) - 1}].judged_by",
        )
    if plan.membership is Membership.CONTINUOUS:
        return
    for index, (stage, size) in enumerate(zip(plan.stages, sizes, strict=True)):
        where = f"Stage {index + 1}"
        if size == 0:
            field = "devices" if stage.cohort is None else "cohort"
            raise InvalidPlan(f"{where}: it adds nobody.", field=f"stages[{index}].{field}")
        if size < stage.minimum_devices:
            raise InvalidPlan(
                f"{where}: minimum_devices {stage.minimum_devices:,} is more than the {size:,} it adds.",
                remedy="It could never pass.",
                field=f"stages[{index}].minimum_devices",
            )


def compared_inputs(plan: Plan) -> list[str]:
    """Return the inputs that the gate compares."""
    return [gate.feature for gate in plan.gate.metrics if gate.metric is Metric.INPUT_DRIFT]


def check_inputs(plan: Plan, reference: ReferenceProfile, others: Mapping[int, ReferenceProfile]) -> None:
    """Check that inputs which are to be compared are counted in the same bins by all versions concerned.

    Args:
        plan: The plan.
        reference: Of the version that it brings.
        others: Of the versions that devices run now.

    Raises:
        InvalidPlan: An input has other bins in one of them, or none.
    """
    for index, gate in enumerate(plan.gate.metrics):
        if gate.metric is not Metric.INPUT_DRIFT:
            continue
        field, where = f"gate.metrics[{index}].feature", f"gate.metrics, input_drift: {gate.feature!r:.80}"
        edges = _edges(reference, gate.feature)
        if edges is None:
            raise InvalidPlan(f"{where} is no input that devices count for the version.", field=field)
        for version, other in sorted(others.items()):
            if _edges(other, gate.feature) != edges:
                raise InvalidPlan(
                    f"{where} has other bins in version {version}, which devices run.",
                    remedy="Counts of other bins cannot be compared; each version has drift alarms.",
                    field=field,
                )


def _edges(reference: ReferenceProfile, name: str) -> tuple[float, ...] | None:
    return next((feature.edges for feature in reference.features if feature.name == name), None)
