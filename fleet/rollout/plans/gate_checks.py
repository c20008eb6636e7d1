"""What is refused of a gate when the plan is written: bounds by which nothing could be judged."""

from __future__ import annotations

import math

import msgspec

from fleet.drift.features import CONFIDENCE_EDGES
from fleet.protocol.errors import InvalidPlan
from fleet.rollout.plans.plan import LONGEST_BUDGET_US, MAX_METRICS, Gate, Metric, MetricGate
from fleet.rollout.plans.refusals import check_number

LARGEST_RATIO = 1000.0
MOST_MEMORY_BYTES = 2.0**40

_SHARES = frozenset({"margin", "limit"})
_FIELDS = {
    Metric.UNSURE: _SHARES | {"threshold"},
    Metric.SLOW: _SHARES | {"budget_us"},
    Metric.LATENCY: frozenset({"quantile", "ratio", "budget_us"}),
    Metric.OUTPUT_DRIFT: frozenset({"margin"}),
    Metric.CONFIDENCE_DRIFT: frozenset({"margin"}),
    Metric.INPUT_DRIFT: frozenset({"margin"}),
    Metric.SHADOW_DISAGREEMENT: frozenset({"limit"}),
    Metric.MEMORY: frozenset({"quantile", "ratio", "budget_bytes"}),
}
"""What each metric needs; what is not named here, it must not have. Others need `_SHARES`."""
_BOUNDS = {
    "margin": (0.0, 1.0),
    "limit": (0.0, 1.0),
    "budget_us": (1.0, LONGEST_BUDGET_US),
    "threshold": (-math.inf, math.inf),
    "quantile": (0.0, 1.0),
    "ratio": (1.0, LARGEST_RATIO),
    "budget_bytes": (1024.0, MOST_MEMORY_BYTES),
}
"""Each must lie between these. A threshold is one of a few, which is checked apart."""
_OPEN = frozenset({"margin", "limit", "quantile", "ratio"})
"""What must be neither of its bounds."""
_ABSENT = {field.name: field.default for field in msgspec.structs.fields(MetricGate)}


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
    if len(gate.metrics) > MAX_METRICS:
        raise InvalidPlan(
            f"gate.metrics: {len(gate.metrics)} metrics; no gate judges more than {MAX_METRICS}.",
            remedy="Each of them has a part of the error budget, and evidence of its own is kept of it.",
            field="gate.metrics",
        )
    for index, metric in enumerate(gate.metrics):
        _check_metric(f"gate.metrics[{index}]", metric)
    if len({(metric.metric, metric.feature) for metric in gate.metrics}) != len(gate.metrics):
        raise InvalidPlan("gate.metrics: a metric is judged twice.", field="gate.metrics")


def _check_metric(path: str, gate: MetricGate) -> None:
    where = f"gate.metrics, {gate.metric.value}"
    for name, (low, high) in _BOUNDS.items():
        value: float | None = getattr(gate, name)
        if name in _FIELDS.get(gate.metric, _SHARES):
            if value is None:
                raise InvalidPlan(f"{where}: {name} belongs to it and is missing.", field=f"{path}.{name}")
            ends = name not in _OPEN
            check_number(
                f"{path}.{name}", value, low, high, where=f"{where}: {name}", above=not ends, below=not ends
            )
        elif value != _ABSENT[name]:
            raise InvalidPlan(f"{where}: {name} does not belong to it.", field=f"{path}.{name}")
    check_number(f"{path}.minimum_samples", gate.minimum_samples, 1, 10**9, where=f"{where}: minimum_samples")
    if (gate.metric is Metric.INPUT_DRIFT) != gate.feature.startswith("input."):
        raise InvalidPlan(
            f"{where}: feature {gate.feature!r:.80} is no input's name, such as input.mean or input.0."
            if gate.metric is Metric.INPUT_DRIFT
            else f"{where}: feature does not belong to it.",
            field=f"{path}.feature",
        )
    if gate.threshold is not None and gate.threshold not in CONFIDENCE_EDGES[1:]:
        raise InvalidPlan(
            f"{where}: threshold {gate.threshold:g} is not one of the edges at which confidence is counted.",
            remedy="Use a multiple of 0.05 from 0.05 to 1.",
            field=f"{path}.threshold",
        )
