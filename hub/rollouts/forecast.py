"""The shell of the forecast: reads what devices told in the last day, and asks `fleet.rollout.forecast`."""

from __future__ import annotations

from fleet.rollout.forecast.forecast import StageForecast, forecast, sampled
from fleet.rollout.forecast.habits import Heard
from fleet.rollout.plans.plan import Metric
from fleet.rollout.state.rollout import Rollout
from hub.store.protocols import RollupStore
from hub.store.telemetry_rows import DAY_S, HOUR_S, ONE_DEVICE

_WITHOUT_PROFILES = frozenset(
    {Metric.INFERENCE_ERRORS, Metric.LABEL_ERRORS, Metric.SLOW, Metric.LATENCY, Metric.SHADOW_DISAGREEMENT}
)
"""Metrics that need no more of a window than what can be read in a tenth of the time."""


def forecast_of(store: RollupStore, rollout: Rollout, now_s: float) -> tuple[StageForecast, ...]:
    """Return what is to be expected of each stage that the gate judges.

    Args:
        store: Keeps what devices told, by hour.
        rollout: As the engine created it.
        now_s: Hub time, Unix seconds.
    """
    metrics = {gate.metric for gate in rollout.plan.gate.metrics}
    asked = sampled(rollout) if metrics else {}
    rows = store.rollups(
        model=rollout.model,
        key=ONE_DEVICE,
        values=sorted(asked),
        start_s=now_s - DAY_S,
        end_s=now_s + HOUR_S,
        resolution_s=HOUR_S,
        profiles=not metrics <= _WITHOUT_PROFILES,
    )
    heard = [
        Heard(row.value, float(row.start_s), row.window)
        for row in rows
        if row.version == asked[row.value].version
    ]
    return forecast(rollout, asked, heard)
