"""How well gates decide, beside fixed thresholds on the same evidence: ``make bench-gates``.

::

    draw harmless worlds ─► gate: false rollbacks      ─► thresholds of every rule, for the same rate of them
    draw harmful worlds  ─► gate, rules so calibrated, as their makers show them ─► exposed, time ─► aims
    harmless worlds of other kinds ─► the best of the calibrated rules: what their thresholds are worth there
    worlds of the other metrics, and with a device that lies (`gates_other`) ─► gate
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from benchmarks import gates_other
from benchmarks.aims import Aim
from benchmarks.gates_rules import End, Fixed, Series, peak, run_fixed, run_gate, series
from benchmarks.gates_worlds import (
    CLASSES,
    DEVICES,
    HARMED_CLASS,
    JUDGED,
    MAXIMUM_BAKE,
    PACE,
    Harm,
    draw,
    reaches,
)
from benchmarks.table import table
from fleet.rollout.gates.gate import Outcome
from fleet.rollout.plans.plan import Gate, JudgedBy, Metric, MetricGate, Plan, Stage

SEED = 10
ERRORS = MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.005, limit=0.15)
LATENCY = MetricGate(metric=Metric.LATENCY, quantile=0.9, ratio=1.1, budget_us=1e6)
HARMLESS = (
    Harm("harmless"),
    Harm("harmless, devices differ", correlation=0.005),
    Harm("harmless, they differ much", correlation=0.03),
)
HARMFUL = (
    Harm("errors +1 point", errors=0.01),
    Harm("errors +3 points", errors=0.03),
    Harm("errors +10 points", errors=0.10),
    Harm("+3 points, devices differ", errors=0.03, correlation=0.005),
    Harm("+10 points in one class", errors=0.10, one_class=True),
)
HARMLESS_LATENCY = (Harm("harmless, by latency"),)
HARMFUL_LATENCY = (Harm("latency x1.2", latency=1.2), Harm("latency x2", latency=2.0))
TARGET = 0.01
"""The rate of false rollbacks."""
LATENCY_BAKE = 15
"""Latency is drawn for so short a bake, because it costs most of the time."""
SHOWN = (
    ("Flagger, 5 checks above 1 %", Fixed("limit", 1, 5, 10), 0.01),
    ("Argo, 3 checks above 5 %", Fixed("limit", 5, 3, 30), 0.05),
    ("hawkBit, 10 % of devices", Fixed("devices", 10, 1, 10), 0.1),
)
"""As in their makers' examples."""
FIXED = tuple(
    Fixed(kind, interval, failures, bake)
    for kind, interval, failures, bake in product(
        ("limit", "devices", "difference"), (1, 5), (1, 3), (15, 30)
    )
    if interval * failures <= bake
)
LIMITS, DIFFERENCES = ("devices", "limit"), ("difference",)
Row = list[str]


class Found(NamedTuple):
    """How rollouts of one kind of harm ended, by rule.

    Attributes:
        harm: Which.
        ends: By name of the rule.
    """

    harm: Harm
    ends: dict[str, list[End]]


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks.gates", description="Measure how well gates decide.")
    parser.add_argument("--harmless", type=int, default=300, help="harmless rollouts, by default 300")
    parser.add_argument("--harmful", type=int, default=100, help="rollouts of each harm, by default 100")
    parser.add_argument("--quick", action="store_true", help="20 and 8 of them")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the worlds, by default {SEED}")
    arguments = parser.parse_args()
    harmless, harmful = (20, 8) if arguments.quick else (arguments.harmless, arguments.harmful)
    errors = _family(
        ERRORS, HARMLESS, HARMFUL, (harmless, harmful), seed=arguments.seed, maximum_bake=MAXIMUM_BAKE
    )
    latency = _family(
        LATENCY,
        HARMLESS_LATENCY,
        HARMFUL_LATENCY,
        (harmless // 5, harmful // 2),
        seed=arguments.seed,
        maximum_bake=LATENCY_BAKE,
    )
    other, other_aims = gates_other.measure(
        (max(1, harmless // 6), max(1, harmful // 5)), arguments.seed, sys.stderr
    )
    texts = [_harmless_table([*errors[0], *latency[0]]), _harmful_table([*errors[1], *latency[1]]), other]
    aims = [*_aims([*errors[0], *latency[0]], [*errors[1], *latency[1]]), *other_aims]
    sys.stdout.write("\n\n".join([*texts, "\n".join(str(aim) for aim in aims)]) + "\n")


def _family(
    metric: MetricGate,
    harmless: Sequence[Harm],
    harmful: Sequence[Harm],
    sizes: tuple[int, int],
    *,
    seed: int,
    maximum_bake: int,
) -> tuple[list[Found], list[Found]]:
    """Return how harmless and harmful rollouts end, by the gate and by calibrated fixed rules."""
    plan = plan_of(metric)
    rules = [rule for rule in FIXED if rule.bake <= maximum_bake and _suits(rule, metric)]
    peaks: dict[Fixed, list[float]] = {rule: [] for rule in rules}
    calm = [
        _measured(
            harm,
            plan,
            sizes[0],
            thresholds={},
            peaks=peaks if harm is harmless[0] else {},
            seed=seed,
            maximum_bake=maximum_bake,
        )
        for harm in harmless
    ]
    thresholds = {
        rule: float(np.quantile(values, 1.0 - TARGET, method="higher")) for rule, values in peaks.items()
    }
    found = [
        _measured(harm, plan, sizes[1], thresholds=thresholds, peaks={}, seed=seed, maximum_bake=maximum_bake)
        for harm in harmful
    ]
    for one in calm[1:]:
        _elsewhere(one, found, thresholds, sizes[0] // 4, seed)
    return calm, found


def _elsewhere(
    calm: Found, harmful: Sequence[Found], thresholds: dict[Fixed, float], count: int, seed: int
) -> None:
    """Note how the rules that expose fewest devices to all harms end in harmless worlds of another kind."""
    rules = {
        kinds: min(
            (rule for rule in thresholds if rule.kind in kinds),
            key=lambda rule: sum(_exposed(one.ends[str(rule)]) for one in harmful),
        )
        for kinds in (LIMITS, DIFFERENCES)
    }
    for number in range(count):
        world = draw(calm.harm, np.random.default_rng([seed, number]))
        for kinds, rule in rules.items():
            end = run_fixed(series(world, rule), rule, thresholds[rule])
            calm.ends.setdefault(f"best fixed {kinds[-1]}, calibrated elsewhere", []).append(end)


def plan_of(metric: MetricGate) -> Plan:
    """Return the plan of stages as `reaches` says, with one metric; its times are kept by the simulation."""
    judged_by = [JudgedBy.GATE] * JUDGED + [JudgedBy.INSTALLS]
    stages = tuple(
        Stage(devices=reach, judged_by=by, minimum_bake_s=1.0, maximum_bake_s=2.0)
        for reach, by in zip(reaches(), judged_by, strict=True)
    )
    return Plan(stages=stages, gate=Gate(metrics=(metric,), error_budget=TARGET))


def _suits(rule: Fixed, metric: MetricGate) -> bool:
    return metric.metric is not Metric.LATENCY or rule.kind != "devices"


def _measured(
    harm: Harm,
    plan: Plan,
    count: int,
    *,
    thresholds: dict[Fixed, float],
    peaks: dict[Fixed, list[float]],
    seed: int,
    maximum_bake: int,
) -> Found:
    """Return how rollouts end; with ``peaks``, note what thresholds would have had to be."""
    ends: dict[str, list[End]] = {}
    latency = plan.gate.metrics[0].metric is Metric.LATENCY
    for number in range(count):
        ticks = DEVICES // PACE + JUDGED * maximum_bake
        world = draw(harm, np.random.default_rng([seed, number]), ticks=ticks, latency=latency)
        ends.setdefault("gate", []).append(run_gate(world, plan, maximum_bake=maximum_bake))
        if harm.one_class:
            alone = run_gate(world, plan, maximum_bake=maximum_bake, by_class=False)
            ends.setdefault("gate without classes", []).append(alone)
        checked: dict[Fixed, Series] = {rule: series(world, rule) for rule in (*peaks, *thresholds)}
        for rule, checks in checked.items():
            if rule in peaks:
                peaks[rule].append(peak(checks, rule))
            if rule in thresholds:
                ends.setdefault(str(rule), []).append(run_fixed(checks, rule, thresholds[rule]))
        if not latency:
            for name, rule, threshold in SHOWN:
                ends.setdefault(name, []).append(run_fixed(series(world, rule), rule, threshold))
    sys.stderr.write(f"  {harm.name}\n")
    return Found(harm, ends)


def _best(found: Found, kinds: Sequence[str]) -> list[End]:
    """Return the ends of the rule of these kinds that exposed fewest devices."""
    rules = [rule for rule in FIXED if rule.kind in kinds and str(rule) in found.ends]
    return min((found.ends[str(rule)] for rule in rules), key=_exposed)


def _exposed(ends: Sequence[End]) -> float:
    return float(np.mean([end.exposed for end in ends]))


def _share(ends: Sequence[End], outcome: Outcome) -> float:
    return sum(end.outcome is outcome for end in ends) / len(ends)


def _harmless_table(found: Sequence[Found]) -> str:
    rows = [
        [
            one.harm.name,
            name,
            f"{len(ends)}",
            *(
                f"{_share(ends, outcome):.3f}"
                for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
            ),
            f"{np.median([end.ticks for end in ends]):.0f}",
        ]
        for one in found
        for name, ends in one.ends.items()
    ]
    columns = ["version", "rule", "rollouts", "rolled back", "paused", "passed", "windows"]
    notes = (f"{DEVICES:,} devices, a look after every window of each, error budget {TARGET:g}.",)
    return table("Harmless versions", columns, rows, notes)


def _harmful_table(found: Sequence[Found]) -> str:
    rows: list[Row] = []
    for one in found:
        by_name = {name: ends for name, ends in one.ends.items() if not name.startswith("Fixed(")}
        by_name["best fixed limit"] = _best(one, LIMITS)
        by_name["best fixed difference"] = _best(one, DIFFERENCES)
        rows += [_harmful_row(one.harm.name, name, ends) for name, ends in by_name.items()]
    columns = ["version", "rule", "rollouts", "rolled back", "paused", "exposed", "windows"]
    notes = (
        "Best: of all intervals, numbers of checks and bakes, at 1 % false rollbacks of harmless versions.",
    )
    return table("Harmful versions", columns, rows, notes)


def _harmful_row(harm: str, name: str, ends: list[End]) -> Row:
    caught = [end.ticks for end in ends if end.outcome is Outcome.FAIL]
    return [
        harm,
        name,
        f"{len(ends)}",
        *(f"{_share(ends, outcome):.3f}" for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)),
        f"{_exposed(ends):.0f}",
        f"{np.median(caught):.0f}" if caught else "-",
    ]


def _aims(harmless: Sequence[Found], harmful: Sequence[Found]) -> list[Aim]:
    aims = [
        Aim(f"false-rollbacks-{_slug(one.harm)}", _share(one.ends["gate"], Outcome.FAIL), "<=", TARGET)
        for one in harmless
    ]
    floor = PACE
    for one in harmful:
        fixed = _exposed(_best(one, LIMITS))
        reason = f"nobody can do with less than the {floor} of the first window" if fixed < 2 * floor else ""
        ratio = _exposed(one.ends["gate"]) / fixed
        aims.append(Aim(f"exposed-of-best-fixed-{_slug(one.harm)}", ratio, "<=", 0.5, reason))
    ours = float(np.mean([_exposed(one.ends["gate"]) for one in harmful]))
    for kinds, what in ((LIMITS, "fixed"), (DIFFERENCES, "fixed-difference")):
        theirs = float(np.mean([_exposed(_best(one, kinds)) for one in harmful]))
        reason = "" if kinds is LIMITS else "calibrated on these very worlds; see what it does in others"
        aims.append(Aim(f"exposed-of-best-{what}-all-harms", ours / theirs, "<=", 0.5, reason))
    confined = next(one for one in harmful if one.harm.one_class)
    name = f"hardware={CLASSES[HARMED_CLASS]}"
    named = [end.outcome is Outcome.FAIL and name in end.classes for end in confined.ends["gate"]]
    aims.append(Aim("harm-in-one-class-found-and-named", float(np.mean(named)), ">=", 0.95))
    return aims


def _slug(harm: Harm) -> str:
    return "".join(c if c.isalnum() else "-" for c in harm.name).replace("--", "-").strip("-")


if __name__ == "__main__":
    main()
