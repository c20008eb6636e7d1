"""A rollout driven by hand: events go in, time moves, and every command that comes out is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fleet.drift.features import CONFIDENCE_EDGES, OUTPUT_CONFIDENCE
from fleet.drift.profile import FeatureCounts
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.protocol.records import TelemetryWindow
from fleet.rollout.engine import create, step
from fleet.rollout.events import Assign, Command, DeploymentReported, Event, EvidenceObserved, Start, Ticked
from fleet.rollout.gates.evidence import Tally
from fleet.rollout.gates.gate import Verdict
from fleet.rollout.gates.stored import changed_parts, from_parts
from fleet.rollout.gates.sums import TallySum
from fleet.rollout.gates.windows import reader
from fleet.rollout.plans.plan import Gate, Metric, MetricGate, OnInconclusive, Plan, Stage
from fleet.rollout.state.columns import Deployment
from fleet.rollout.state.deployments import Deployments
from fleet.rollout.state.rollout import Kind, Rollout, Status
from fleet.rollout.state.stored import decode_summary, encode_summary, whole

OLD = "a" * 64
NEW = "b" * 64
DEVICES = {f"cam-{i}": 1 for i in range(8)}

LABELS = MetricGate(metric=Metric.LABEL_ERRORS, margin=0.1, limit=0.3)


def plan(
    *devices: int | str,
    metrics: tuple[MetricGate, ...] = (LABELS,),
    maximum_failed_share: float = 0.0,
    minimum_bake_s: float = 5.0,
    maximum_bake_s: float = 60.0,
    on_inconclusive: OnInconclusive = OnInconclusive.PAUSE,
) -> Plan:
    """Return a plan whose stages differ only in their devices; by default one, half, all."""
    return Plan(
        stages=tuple(
            Stage(devices=d, minimum_bake_s=minimum_bake_s, maximum_bake_s=maximum_bake_s)
            for d in devices or (1, "50%", "all")
        ),
        gate=Gate(maximum_failed_share=maximum_failed_share, metrics=metrics),
        deployment_timeout_s=100.0,
        on_inconclusive=on_inconclusive,
    )


def window(
    manifest_sha256: str,
    at_s: float,
    *,
    predictions: int = 200,
    wrong: int = 6,
    errors: int = 0,
    confidence_cells: list[int] | None = None,
    latency: dict[int, int] | None = None,
) -> TelemetryWindow:
    """Return two seconds of telemetry in which every answer got a label."""
    profile = {}
    if confidence_cells is not None:
        assert len(confidence_cells) == len(CONFIDENCE_EDGES) + 1
        profile[OUTPUT_CONFIDENCE] = FeatureCounts(cells=confidence_cells)
    return TelemetryWindow(
        started_at_s=at_s,
        ended_at_s=at_s + 2.0,
        model="digits",
        version=1 if manifest_sha256 == OLD else 2,
        manifest_sha256=manifest_sha256,
        variant="onnx-int8",
        predictions=predictions,
        errors=errors,
        labelled=predictions,
        correct=predictions - wrong,
        latency=latency or {},
        profile=profile,
    )


class Campaign:
    """One rollout and its clock.

    Attributes:
        rollout: The present state.
        now_s: The hub's clock, which is also every device's.
        commands: Everything commanded so far.
    """

    def __init__(
        self,
        the_plan: Plan | None = None,
        *,
        devices: dict[str, int | None] | dict[str, int] | None = None,
        kind: Kind = Kind.UPDATE,
        started: bool = True,
        version: int = 2,
    ) -> None:
        self.now_s = 1000.0
        self.commands: list[Command] = []
        self.rollout: Rollout = create(
            number=7,
            kind=kind,
            model="digits",
            version=version,
            manifest_sha256=NEW,
            plan=the_plan or plan(),
            seed=3,
            devices=dict(DEVICES if devices is None else devices),
            now_s=self.now_s,
        )
        if started:
            self.do(Start("ann"))

    def do(self, event: Event) -> tuple[Command, ...]:
        """Let an event happen now."""
        self.rollout, commands = step(self.rollout, event, self.now_s)
        self.commands.extend(commands)
        return commands

    def wait(self, seconds: float) -> tuple[Command, ...]:
        """Let time pass, then tick."""
        self.now_s += seconds
        return self.do(Ticked())

    def status(self) -> Status:
        """Return where the rollout stands."""
        return self.rollout.status

    def cause(self) -> Cause:
        """Return why the rollout ended as it did; it did so for a reason."""
        assert self.rollout.cause is not None
        return self.rollout.cause

    def verdict(self) -> Verdict:
        """Return the latest verdict; there was one."""
        assert self.rollout.verdict is not None
        return self.rollout.verdict

    def cohort(self, stage: int) -> list[Deployment]:
        """Return the deployments of a stage."""
        return [d for d in self.rollout.deployments if d.stage == stage]

    def report(
        self,
        deployment: Deployment,
        state: DeploymentState,
        *,
        back: bool = False,
        cause: Cause | None = None,
    ) -> tuple[Command, ...]:
        """Let a device report on its way forward, or back."""
        now = self.rollout.deployments[deployment.index]
        return self.do(self.report_of(now, state, back=back, cause=cause))

    def report_of(
        self,
        deployment: Deployment,
        state: DeploymentState,
        *,
        back: bool = False,
        cause: Cause | None = None,
    ) -> DeploymentReported:
        """Return what a device reports of its deployment as it is given."""
        attempt = deployment.restore if back else deployment.attempt
        assert attempt is not None
        return DeploymentReported(deployment.device_id, attempt.deployment_id, state, self.now_s, cause)

    def succeed(self, stage: int) -> None:
        """Let every device of a stage commit the version."""
        for deployment in self.cohort(stage):
            self.report(deployment, DeploymentState.SUCCEEDED)

    def restore_all(self) -> None:
        """Let every device that was sent back arrive there."""
        for d in list(self.rollout.deployments):
            if d.restore is not None and d.restore.is_open:
                removal = d.previous_version is None
                self.report(d, DeploymentState.REMOVED if removal else DeploymentState.SUCCEEDED, back=True)

    def observe(self, *, canary_wrong: int = 6, control_wrong: int = 6, rounds: int = 1) -> None:
        """Let every device report two seconds of 200 labelled answers, so many of them wrong."""
        for _ in range(rounds):
            started_s = self.now_s
            self.now_s += 2.0
            self.do(EvidenceObserved(tuple(self._windows(started_s, canary_wrong, control_wrong))))

    def orders(self) -> list[tuple[str, str, int | None]]:
        """Return every order given so far."""
        return [(c.device_id, c.deployment_id, c.version) for c in self.commands if isinstance(c, Assign)]

    def _windows(
        self, started_s: float, canary_wrong: int, control_wrong: int
    ) -> Iterable[tuple[str, TelemetryWindow]]:
        for d in self.rollout.deployments:
            if d.attempt.state is DeploymentState.SUCCEEDED and d.restore is None:
                yield d.device_id, window(NEW, started_s, wrong=canary_wrong)
            elif d.attempt.ordered_s is None and d.previous_version is not None:
                yield d.device_id, window(OLD, started_s, wrong=control_wrong)


def tally(one: TelemetryWindow, gate: MetricGate) -> Tally:
    """Return what a window says about one metric."""
    counted = TallySum()
    counted.add(*reader(gate)(one))
    return counted.tally()


class Stored(NamedTuple):
    """All that a store keeps of a rollout."""

    summary: bytes
    evidence: tuple[dict[int, bytes], ...]
    devices: tuple[Deployment, ...]


def stored(rollout: Rollout) -> Stored:
    """Return all that a store keeps of a rollout."""
    evidence = tuple(changed_parts(stage.evidence, None) for stage in rollout.stages)
    return Stored(encode_summary(rollout), evidence, tuple(rollout.deployments))


def restored(kept: Stored) -> Rollout:
    """Return the rollout of which `stored` was kept."""
    summary = decode_summary(kept.summary, [from_parts(parts) for parts in kept.evidence])
    return whole(summary, Deployments.of(summary.number, kept.devices))


def assigned(commands: Iterable[Command]) -> dict[str, int | None]:
    """Return which device is to run which version, by these commands."""
    return {c.device_id: c.version for c in commands if isinstance(c, Assign)}
