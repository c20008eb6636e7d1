"""What is refused of a gate when the plan is written: bounds by which nothing could be judged."""

from __future__ import annotations

from fleet.drift.features import CONFIDENCE_EDGES
from fleet.protocol.errors import InvalidPlan
from fleet.rollout.plan import LONGEST_BUDGET_US, Gate, Metric, MetricGate
from fleet.rollout.refusals import check_number


def check_gate(gate: Gate) -> None:
    """Check a gate.

    Raises:
        InvalidPlan: The message names the metric or field and the reason.
    """
    check_number("gate.error_budget", gate.error_budget, 1e-9, 0.5)
    check_number("gate.maximum_failed_share", gate.maximum_failed_share, 0.0, 1.0)
    if gate.maximum_failed_share == 1.0:
        raise InvalidPlan(
            "gate.maximum_failed_share: 1 would let every deployment fail.", field="gate.maximum_failed_share"
        )
    for index, metric in enumerate(gate.metrics):
        _check_metric(f"gate.metrics[{index}]", metric)
    if len({metric.metric for metric in gate.metrics}) != len(gate.metrics):
        raise InvalidPlan("gate.metrics: a metric is judged twice.", field="gate.metrics")


def _check_metric(path: str, gate: MetricGate) -> None:
    where = f"gate.metrics, {gate.metric.value}"
    for name, share in (("margin", gate.margin), ("limit", gate.limit)):
        check_number(f"{path}.{name}", share, 0.0, 1.0, where=f"{where}: {name}", above=True, below=True)
    if not 1 <= gate.minimum_samples <= 10**9:
        raise InvalidPlan(
            f"{where}: minimum_samples {gate.minimum_samples} is not from 1 to 10^9.",
            field=f"{path}.minimum_samples",
        )
    if (gate.budget_us is not None) != (gate.metric is Metric.SLOW):
        raise InvalidPlan(
            f"{where}: budget_us belongs to 'slow', and 'slow' needs it.", field=f"{path}.budget_us"
        )
    if gate.budget_us is not None:
        check_number(f"{path}.budget_us", gate.budget_us, 1.0, LONGEST_BUDGET_US, where=f"{where}: budget_us")
    if (gate.threshold is not None) != (gate.metric is Metric.UNSURE):
        raise InvalidPlan(
            f"{where}: threshold belongs to 'unsure', and 'unsure' needs it.", field=f"{path}.threshold"
        )
    if gate.threshold is not None and gate.threshold not in CONFIDENCE_EDGES[1:]:
        raise InvalidPlan(
            f"{where}: threshold {gate.threshold:g} is not one of the edges at which confidence is counted.",
            remedy="Use a multiple of 0.05 from 0.05 to 1.",
            field=f"{path}.threshold",
        )
