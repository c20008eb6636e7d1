"""The forecast of a rollout: for each judged stage and metric, whether a harmless version can be proven so.

::

    LIKELY      within the longest bake a PASS comes in 80 % of all cases or more
    OPEN        in between
    UNLIKELY    in 20 % or fewer: most probably the rollout pauses there
    UNKNOWN     no telemetry tells
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.rollout.forecast import sentences
from fleet.rollout.forecast.habits import Asked, Heard, habits_of
from fleet.rollout.forecast.outlook import LIKELY, Outlook, devices_needed, least_harm, time_needed_s
from fleet.rollout.gates.comparison import Basis
from fleet.rollout.gates.evidence import Evidence
from fleet.rollout.gates.gate import HEARD_SHARE, MetricVerdict
from fleet.rollout.plans.naming import stage_called
from fleet.rollout.plans.plan import JudgedBy, Metric, MetricGate, Plan
from fleet.rollout.state.columns import NO_VERSION
from fleet.rollout.state.rollout import Rollout, Warned

MOST_SAMPLED = 400
"""So many devices are asked about at most: they tell how far the others differ."""
MOST_ASKED = 5_000
"""Metrics of stages, each times its classes and `_OF_THE_WHOLE`, that are foretold: half a minute of work."""
_OF_THE_WHOLE = 8
"""What is asked of a metric in all classes together takes as long as so many classes."""
_LATER = 30.0
"""A PASS that comes within so many times the longest bake is a question of time, else of devices."""


class Expectation(StrEnum):
    """Whether a PASS can be expected, see the head of this file."""

    LIKELY = "likely"
    OPEN = "open"
    UNLIKELY = "unlikely"
    UNKNOWN = "unknown"


class MetricForecast(msgspec.Struct, frozen=True):
    """What is to be expected of one metric of a stage.

    Attributes:
        metric: Which.
        feature: Of ``input_drift``: which input.
        expectation: Whether it passes.
        sentence: For people.
        chance: How likely a harmless version passes within the longest bake; None if unknown.
        passes_after_s: After how long a bake that is as likely as not; None if not within the longest.
        devices_needed: Of a metric that is not likely to pass: from how many canaries on it is. None if from
            none, or if it is not compared with controls of the same time.
        least_harm: How much more of the answers must be bad, or of a quantile how many times as large it must
            be, for harm to be found within the longest bake; None if none would be.
        share: Share of bad answers now; None of histograms, or if unknown.
        answers_per_minute: Of one device, on average; None if unknown.
        correlation: Of the answers of one device; None if unknown.
        devices: How many devices this is known from.
    """

    metric: Metric
    feature: str
    expectation: Expectation
    sentence: str
    chance: float | None = None
    passes_after_s: float | None = None
    devices_needed: int | None = None
    least_harm: float | None = None
    share: float | None = None
    answers_per_minute: float | None = None
    correlation: float | None = None
    devices: int = 0


class StageForecast(msgspec.Struct, frozen=True):
    """What is to be expected of a stage that the gate judges.

    Attributes:
        stage: Which, from 0.
        expectation: The least favourable of its metrics'.
        canaries: How many devices it is judged on, earlier stages' included.
        heard_share: Which part of the devices told anything of late, 0 to 1.
        warning: Why it cannot pass whatever its metrics say; empty otherwise.
        metrics: In the plan's order.
    """

    stage: int
    expectation: Expectation
    canaries: int
    heard_share: float
    warning: str
    metrics: tuple[MetricForecast, ...]


def sampled(rollout: Rollout) -> dict[str, Asked]:
    """Return some of the devices that run a version, `MOST_SAMPLED` at most.

    They are taken evenly from the rollout's order, and so from every stage and class.
    """
    deployments = rollout.deployments
    if not len(deployments):
        return {}
    number = min(len(deployments), MOST_SAMPLED)
    places = np.unique(np.linspace(0, len(deployments) - 1, number).astype(np.intp))
    return {
        part.device_id: Asked(rollout.strata[part.stratum], part.previous_version)
        for part in deployments.at(places)
        if part.previous_version is not None
    }


def forecast(
    rollout: Rollout, asked: Mapping[str, Asked], heard: Sequence[Heard]
) -> tuple[StageForecast, ...]:
    """Return what is to be expected of each stage that is judged by the gate.

    Of a plan with many metrics, stages and classes these are the first stages, as far as `MOST_ASKED` allows.

    Args:
        rollout: As the engine created it; it was not started.
        asked: Of `sampled`.
        heard: What of them told anything of late, of the version that it runs.
    """
    plan, metrics = rollout.plan, rollout.plan.gate.metrics
    habits = [habits_of(gate, asked, heard) for gate in metrics]
    heard_share = len({one.device_id for one in heard}) / max(1, len(asked))
    sizes, with_version = _sizes(rollout)
    before: list[list[Evidence]] = [[] for _ in metrics]
    stages: list[StageForecast] = []
    latest: dict[Metric, MetricForecast] = {}
    for index, stage in enumerate(plan.stages[: _stages_foretold(rollout)]):
        canaries, controls = _sum(sizes[: index + 1]), _sum(with_version[index + 1 :])
        outlooks = [
            Outlook(plan, gate, known, canaries, controls, tuple(earlier))
            if known is not None and known.correlation is not None
            else None
            for gate, known, earlier in zip(metrics, habits, before, strict=True)
        ]
        if stage.judged_by is JudgedBy.GATE:
            forecasts: list[MetricForecast] = []
            for gate, outlook in zip(metrics, outlooks, strict=True):
                forecasts.append(_metric(gate, outlook, stage.maximum_bake_s, latest.get(gate.metric)))
                latest[gate.metric] = forecasts[-1]
            stages.append(_stage(index, canaries, heard_share, tuple(forecasts)))
        for outlook, known, earlier in zip(outlooks, stages[-1].metrics, before, strict=True):
            bake_s = max(stage.minimum_bake_s, known.passes_after_s or stage.maximum_bake_s)
            earlier.append(outlook.evidence(bake_s) if outlook is not None else Evidence.empty(1))
    return tuple(stages)


def warnings(plan: Plan, stages: Iterable[StageForecast]) -> tuple[Warned, ...]:
    """Return what an operator should know before the start: which stages are not likely to pass, and why."""
    told: list[Warned] = []
    for stage in stages:
        name = stage_called(plan, stage.stage)
        found = [stage.warning] if stage.warning else []
        found += [
            metric.sentence
            for metric in stage.metrics
            if metric.expectation in {Expectation.OPEN, Expectation.UNLIKELY}
        ]
        told += [Warned(stage.stage, f"{name}: {sentence}") for sentence in found]
    return tuple(told)


def _stages_foretold(rollout: Rollout) -> int:
    """Return of how many stages there is time to tell, the first at least."""
    of_each = len(rollout.plan.gate.metrics) * (len(rollout.strata) + _OF_THE_WHOLE)
    return max(1, MOST_ASKED // max(1, of_each))


def _stage(
    index: int,
    canaries: Mapping[str, float],
    heard_share: float,
    metrics: tuple[MetricForecast, ...],
) -> StageForecast:
    expectations = {metric.expectation for metric in metrics}
    warning = ""
    if Expectation.UNKNOWN not in expectations and heard_share < HEARD_SHARE:
        warning = sentences.too_silent(heard_share, HEARD_SHARE)
        expectations.add(Expectation.UNLIKELY)
    worst = (Expectation.UNLIKELY, Expectation.UNKNOWN, Expectation.OPEN)
    return StageForecast(
        stage=index,
        expectation=next((one for one in worst if one in expectations), Expectation.LIKELY),
        canaries=round(sum(canaries.values())),
        heard_share=heard_share,
        warning=warning,
        metrics=metrics,
    )


def _metric(
    gate: MetricGate, outlook: Outlook | None, bake_s: float, like: MetricForecast | None
) -> MetricForecast:
    """Return what is to be expected of a metric; what was found of one ``like`` it is tried first."""
    if outlook is None:
        sentence = sentences.unknown(gate)
        return MetricForecast(gate.metric, gate.feature, Expectation.UNKNOWN, sentence)
    said, habits = outlook.judged(bake_s), outlook.habits
    chance, basis = outlook.chance_by(said), said.basis
    near_s, near = (like.passes_after_s, like.least_harm) if like else (None, None)
    passes_after_s = time_needed_s(outlook, bake_s, at_longest=chance, near_s=near_s)
    found = least_harm(outlook, bake_s, near)
    if chance >= LIKELY:
        expectation, needed = Expectation.LIKELY, None
        sentence = sentences.likely(gate, passes_after_s, found, bake_s)
    else:
        expectation = Expectation.OPEN if chance > 1.0 - LIKELY else Expectation.UNLIKELY
        needed = devices_needed(outlook, bake_s) if basis is Basis.CONCURRENT else None
        later_s = time_needed_s(outlook, _LATER * bake_s, LIKELY)
        sentence = sentences.short_of(
            gate,
            basis,
            _cause(outlook, said, later_s),
            canaries=round(sum(outlook.canaries.values())),
            bake_s=bake_s,
            is_open=expectation is Expectation.OPEN,
            devices_needed=needed,
            later_s=later_s,
        )
    return MetricForecast(
        metric=gate.metric,
        feature=gate.feature,
        expectation=expectation,
        sentence=sentence,
        chance=round(chance, 2),
        passes_after_s=passes_after_s,
        devices_needed=needed,
        least_harm=found,
        share=None if habits.whole.cells else habits.whole.mean,
        answers_per_minute=60.0 * habits.whole.per_s,
        correlation=habits.correlation,
        devices=habits.devices,
    )


def _cause(outlook: Outlook, said: MetricVerdict, later_s: float | None) -> str:
    """Return why a harmless version that the gate ``said`` this of is not likely to pass."""
    habits = outlook.habits
    if said.basis is Basis.LIMIT and said.harm >= said.safety:
        return sentences.beyond(outlook.gate, habits)
    if later_s is not None:
        return sentences.few_answers(habits)
    return (
        sentences.few_readings() if outlook.gate.metric is Metric.MEMORY else sentences.devices_differ(habits)
    )


def _sizes(rollout: Rollout) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Return how many devices of each class each stage adds, and how many of these run a version."""
    names, stages = rollout.strata, len(rollout.plan.stages)
    every, running = (np.zeros(stages * len(names), dtype=np.int64) for _ in range(2))
    for page in rollout.deployments.pages:
        rows = page.rows
        place = rows["stage"].astype(np.int64) * len(names) + rows["stratum"]
        every += np.bincount(place, minlength=len(every))
        running += np.bincount(place[rows["previous_version"] != NO_VERSION], minlength=len(running))
    return _by_class(every, names), _by_class(running, names)


def _by_class(counts: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, float]]:
    rows = counts.reshape(-1, len(names)).tolist()
    return [{name: float(number) for name, number in zip(names, row, strict=True) if number} for row in rows]


def _sum(stages: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for stage in stages:
        for name, number in stage.items():
            total[name] = total.get(name, 0.0) + number
    return total
