"""What a simulated rollout costs: ``make bench-simulate``; docs/benchmarks.md says how.

::

    one rollout of a million devices, start to end, by the hub's engine ─► seconds, messages a second, memory
    the ready scenarios on small fleets, several seeds each             ─► how many ended as they ought to

Each is a process of its own, so that memory is that of one run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from typing import NamedTuple

from benchmarks.aims import Aim
from benchmarks.table import table
from fleet.rollout.plans.plan import Gate, Metric, MetricGate, Plan, Retries, Stage
from fleet.rollout.state.rollout import Status
from hub.simulation.outcome import Judgement, Outcome
from hub.simulation.ready import READY
from hub.simulation.rollout import SimulatedRollout
from hub.simulation.scenario import Fleet, Links, Scenario, Telemetry, Version

MOST_S = 120.0
HOUR_S = 3600.0
MILLION = Scenario(
    about="A million devices that tell once an hour.",
    fleet=Fleet(links=Links(spread=0.8)),
    version=Version(size_bytes=5_000_000),
    telemetry=Telemetry(window_s=HOUR_S),
)


class Run(NamedTuple):
    """One run, measured."""

    outcome: Outcome
    cpu_s: float
    peak_mb: float


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks.simulate", description="Measure simulated rollouts.")
    parser.add_argument("--devices", type=int, default=1_000_000, help="devices of the large rollout")
    parser.add_argument("--small", type=int, default=300, help="devices of the others")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each scenario")
    arguments = parser.parse_args()
    sys.stderr.write(f"  {arguments.devices:,} devices\n")
    large = _apart(MILLION, arguments.devices, 1)
    shown = [_large(large, arguments.devices)]
    if arguments.seeds:
        sys.stderr.write("  the ready scenarios\n")
        shown.append(_small(arguments.small, arguments.seeds))
    assert large.outcome.status is Status.SUCCEEDED, large.outcome.reason
    assert large.outcome.unaccounted == 0
    is_million = arguments.devices == 1_000_000
    reason = "" if is_million else f"measured with {arguments.devices:,} devices"
    aim = Aim("simulate-million-s", large.cpu_s if is_million else None, "<=", MOST_S, reason)
    sys.stdout.write("\n".join([*shown, str(aim), ""]))


def plan() -> Plan:
    """Return the plan of every run: a hundredth, a fifth, all."""
    return Plan(
        stages=tuple(
            Stage(devices=d, minimum_bake_s=600.0, maximum_bake_s=86400.0) for d in ("1%", "20%", "all")
        ),
        gate=Gate(
            error_budget=0.01,
            maximum_failed_share=0.05,
            metrics=(
                MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.01, limit=0.02),
                MetricGate(metric=Metric.SLOW, margin=0.05, limit=0.1, budget_us=60_000.0),
            ),
        ),
        devices_per_minute=100_000.0,
        retries=Retries(attempts=2, backoff_s=300.0),
        deployment_timeout_s=4 * HOUR_S,
    )


def _apart(scenario: Scenario, devices: int, seed: int) -> Run:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return Run(*pool.apply(_measured, (scenario, devices, seed)))


def _measured(scenario: Scenario, devices: int, seed: int) -> Run:
    began_s = time.process_time()
    outcome = SimulatedRollout(plan(), scenario, seed=seed, devices=devices).run()
    cpu_s = time.process_time() - began_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Run(outcome, cpu_s, peak / (1e6 if sys.platform == "darwin" else 1e3))


def _large(run: Run, devices: int) -> str:
    outcome = run.outcome
    messages = outcome.reports + outcome.windows
    rows = [
        ["CPU seconds of one core", f"{run.cpu_s:.1f}"],
        ["messages of devices", f"{messages:,}"],
        ["of these reports of deployments", f"{outcome.reports:,}"],
        ["messages a second", f"{messages / run.cpu_s:,.0f}"],
        ["simulated hours", f"{outcome.duration_s / HOUR_S:.1f}"],
        ["MB of memory at most", f"{run.peak_mb:,.0f}"],
        ["devices without an outcome", f"{outcome.unaccounted:,}"],
    ]
    return table(f"A simulated rollout to {devices:,} devices", ["what", "measured"], rows) + "\n"


def _small(devices: int, seeds: int) -> str:
    rows = []
    for name, scenario in READY.items():
        runs = [_measured(scenario, devices, seed).outcome for seed in range(seeds)]
        judged = {one: sum(run.judgement is one for run in runs) for one in Judgement}
        told = ", ".join(f"{number} {one.value}" for one, number in judged.items() if number)
        hours = sorted(run.duration_s / HOUR_S for run in runs)[len(runs) // 2]
        exposed = sorted(run.harmed_before_stop for run in runs)[len(runs) // 2]
        rows.append([name, told, f"{hours:.1f}", f"{exposed:,}"])
    columns = ["scenario", "judgement", "hours", "harmed before the stop"]
    return table(f"Ready scenarios, {devices:,} devices, {seeds} seeds", columns, rows) + "\n"


if __name__ == "__main__":
    main()
