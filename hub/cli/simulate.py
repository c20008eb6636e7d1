"""``muster simulate``: a rollout on a fleet that does not exist, before it meets one that does."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from fleet.protocol.errors import InvalidPlan
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.rollout import Rollout
from hub.cli.output import JsonFlag, console, progress, show
from hub.cli.rollout_plans import read_text
from hub.cli.simulate_progress import Watched
from hub.plan_file import Marks, placing, read_plan
from hub.simulation.outcome import Outcome, Report
from hub.simulation.ready import READY
from hub.simulation.report import drawn
from hub.simulation.scenario import MAX_DEVICES, Scenario

_READY_NAMES = ", ".join(READY)


def simulate(
    plan: Annotated[Path, typer.Argument(help="Plan file, YAML or JSON.")],
    scenario: Annotated[
        str, typer.Option(help=f"A scenario file, YAML or JSON, or one of: {_READY_NAMES}.")
    ] = "harmless",
    devices: Annotated[
        int | None, typer.Option(min=1, max=MAX_DEVICES, help="How many; without it, as the scenario says.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same answer.")] = 0,
    runs: Annotated[int, typer.Option(min=1, max=100_000, help="So many, each with the next seed.")] = 1,
    store: Annotated[
        Path | None, typer.Option(help="A new folder; every step is stored there as the hub stores it.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Let a plan run on a simulated fleet and say what came of it. No hub is asked."""
    from hub.simulation.scenario_file import find_scenario

    read, marks = read_plan(read_text(plan))
    chosen = find_scenario(scenario)
    if store is not None and runs > 1:
        raise InvalidPlan("A store keeps one run.", remedy="Leave out --runs or --store.")
    outcomes: list[Outcome] = []
    began_s, records = time.monotonic(), 0
    with progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), show=not as_json
    ) as bar:
        watched = Watched(bar, runs)
        for number in range(runs):
            look = partial(watched.look, number + 1)
            outcome = _run(read, marks, chosen, seed + number, devices, store, look)
            records += outcome.reports + outcome.windows
            outcomes.append(outcome)
    took_s = time.monotonic() - began_s
    report = Report.of(scenario, chosen.about, ought_to_stop=chosen.ought_to_stop, runs=outcomes)
    show(
        msgspec.to_builtins(report),
        as_json=as_json,
        draw=lambda _: console.print(drawn(report), markup=False),
    )
    print(  # noqa: T201 - what differs from run to run stays out of the answer
        f"Simulated in {took_s:.1f} s, {records / took_s:,.0f} messages a second, "
        f"{_memory_mb():,.0f} MB of memory at most.",
        file=sys.stderr,
    )


def _run(
    plan: Plan,
    marks: Marks,
    scenario: Scenario,
    seed: int,
    devices: int | None,
    store: Path | None,
    look: Callable[[Rollout, float], None],
) -> Outcome:
    # With them come engine and store: a third of what every other command would take to start.
    from hub.simulation.keeping import InStore
    from hub.simulation.rollout import SimulatedRollout

    with placing(marks):
        simulated = SimulatedRollout(plan, scenario, seed=seed, devices=devices)
    with ExitStack() as stack:
        keeping = None if store is None else stack.enter_context(InStore(store, simulated.devices))
        return simulated.run(keeping=keeping, look=lambda now_s: look(simulated.state, now_s))


def _memory_mb() -> float:
    """Return the most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
