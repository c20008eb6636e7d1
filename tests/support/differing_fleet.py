"""A fleet whose devices differ: its telemetry of the last hours, and a stage of a rollout by the real engine.

Each device has its own distribution of answers over the cells of a metric, drawn from a Dirichlet
distribution of a given correlation; of shares that is the beta-binomial. The version does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleet.drift.features import OUTPUT_CLASS
from fleet.drift.profile import FeatureCounts
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.records import TelemetryWindow
from fleet.rollout.engine import create, step
from fleet.rollout.events import DeploymentReported, DeploymentsReported, EvidenceObserved, Start, Ticked
from fleet.rollout.forecast.habits import Asked, Heard
from fleet.rollout.plans.plan import Metric, Plan
from fleet.rollout.state.rollout import Kind, Rollout
from tests.support.rollouts import NEW, OLD

HOUR_S = 3600.0
START_S = 1_800_000_000.0


@dataclass(frozen=True)
class DifferingFleet:
    """What its devices do.

    Attributes:
        devices: How many there are.
        metric: What differs: inference errors (cell 1 is bad), latency or the class of the answer.
        cells: The fleet's share of each cell.
        correlation: Of the answers of one device, above 0.
        per_minute: Answers of one device.
        classes: How many classes of devices there are.
    """

    devices: int
    metric: Metric
    cells: dict[int, float]
    correlation: float
    per_minute: float
    classes: int = 1

    @property
    def names(self) -> list[str]:
        """The devices."""
        return [f"cam-{number:05d}" for number in range(self.devices)]

    def strata(self) -> dict[str, str]:
        """Return the class of each device."""
        if self.classes == 1:
            return {}
        return {name: f"hardware=pi{n % self.classes}" for n, name in enumerate(self.names)}

    def drawn(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return each device's own shares of the cells, shape (devices, cells)."""
        mass = (1.0 - self.correlation) / self.correlation
        return rng.dirichlet([share * mass for share in self.cells.values()], self.devices)

    def window(
        self,
        rng: np.random.Generator,
        shares: NDArray[np.float64],
        begun_s: float,
        length_s: float,
        digest: str,
    ) -> TelemetryWindow:
        """Return what one device tells of a span of time."""
        counts = rng.multinomial(rng.poisson(self.per_minute * length_s / 60.0), shares).tolist()
        cells = {cell: n for cell, n in zip(self.cells, counts, strict=True) if n}
        total, profile = sum(counts), {}
        errors = cells.get(1, 0) if self.metric is Metric.INFERENCE_ERRORS else 0
        if self.metric is Metric.OUTPUT_DRIFT:
            profile[OUTPUT_CLASS] = FeatureCounts(cells=[cells.get(n, 0) for n in range(max(self.cells) + 1)])
        return TelemetryWindow(
            started_at_s=begun_s,
            ended_at_s=begun_s + length_s,
            model="digits",
            version=1 if digest == OLD else 2,
            manifest_sha256=digest,
            variant="onnx-int8",
            predictions=total - errors,
            errors=errors,
            latency=cells if self.metric is Metric.LATENCY else {},
            profile=profile,
        )

    def rollout(self, plan: Plan, seed: int) -> Rollout:
        """Return a rollout to the fleet that was not started."""
        return create(
            number=1,
            kind=Kind.UPDATE,
            model="digits",
            version=2,
            manifest_sha256=NEW,
            plan=plan,
            seed=seed,
            devices=dict.fromkeys(self.names, 1),
            now_s=START_S,
            strata=self.strata(),
        )

    def heard(self, rng: np.random.Generator, asked: Mapping[str, Asked], hours: int) -> list[Heard]:
        """Return what devices told in the last hours, an hour added up."""
        drawn = dict(zip(self.names, self.drawn(rng), strict=True))
        return [
            Heard(name, begun_s, self.window(rng, drawn[name], begun_s, HOUR_S, OLD))
            for name in asked
            for begun_s in (START_S - hour * HOUR_S for hour in range(hours, 0, -1))
        ]


def first_stage(fleet: DifferingFleet, plan: Plan, seed: int, *, looks: int = 6) -> Rollout:
    """Return the rollout after the longest bake of its first stage, in which all devices told of themselves.

    Args:
        fleet: Whose devices all follow.
        plan: Of the rollout.
        seed: Of devices and answers.
        looks: So many windows of each device come during the bake.
    """
    rng = np.random.default_rng(seed)
    rollout, _ = step(fleet.rollout(plan, seed), Start("ann"), START_S)
    reports = tuple(
        DeploymentReported(part.device_id, part.attempt.deployment_id, DeploymentState.SUCCEEDED, START_S)
        for part in rollout.deployments
        if part.stage == 0
    )
    rollout, _ = step(rollout, DeploymentsReported(reports), START_S)
    drawn = dict(zip(fleet.names, fleet.drawn(rng), strict=True))
    length_s = plan.stages[0].maximum_bake_s / looks
    for look in range(looks):
        begun_s = START_S + look * length_s
        windows = tuple(
            (
                part.device_id,
                fleet.window(rng, drawn[part.device_id], begun_s, length_s, OLD if part.stage else NEW),
            )
            for part in rollout.deployments
        )
        rollout, _ = step(rollout, EvidenceObserved(windows), begun_s + length_s - 1.0)
        rollout, _ = step(rollout, Ticked(), begun_s + length_s)
        if len(rollout.stages) > 1 or rollout.status.is_final:
            break
    return rollout
