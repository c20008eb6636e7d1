"""``muster rollout plan`` and ``muster rollout schema``: a plan's dry run and its JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.errors import InvalidPlan
from fleet.rollout.obstacles import Obstacle
from fleet.rollout.plans.plan import MAX_PLAN_SIZE_BYTES
from fleet.rollout.plans.schema import plan_schema
from fleet.sentences import devices, duration
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, console, show

MAX_VALUES = 12
"""Most values of an attribute that are printed of a stage; JSON has all."""


def plan(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Plan file, YAML or JSON.")],
    model: Annotated[str, typer.Option(help="Name of the model.")],
    version: Annotated[int, typer.Option(min=1, help="A released version.")],
    device: Annotated[list[str] | None, typer.Option(help="Reach only this device; repeat for more.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which devices come first.")] = 0,
    variant_policy: Annotated[
        VariantPolicy | None, typer.Option(help="Which variant devices run, in place of the plan's choice.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--check", help="Work it out, or only say whether it is accepted.")
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Check a plan and say what it would do, before anything moves. JSON names every device."""
    body = {
        "model": model,
        "version": version,
        "plan": read_text(file),
        "devices": device or None,
        "seed": seed,
        "variant_policy": variant_policy,
        "all_named": as_json,
    }
    told = client_of(context).post("/rollouts/dry-run", body)
    if dry_run or as_json:
        show(told, as_json=as_json, draw=_print)
    if not dry_run and told["refused"]:
        raise InvalidPlan(told["refused"], remedy=told["remedy"])
    if not dry_run and not as_json:
        kept = told["obstacles"].get(Obstacle.CLAIMED.value, 0)
        without = f" {devices(kept)} would stay with other rollouts." if kept else ""
        console.print(
            f"The plan is accepted: {devices(told['devices'])} in {len(told['stages'])} stages.{without}"
        )
        _print_misfit(told)


def schema() -> None:
    """Print the JSON Schema of plans, for editors."""
    console.out(json.dumps(plan_schema(), indent=2, ensure_ascii=False), highlight=False)


def read_text(path: Path) -> str:
    """Return the text of a plan file; the hub reads it, so that refusals name the line.

    Raises:
        InvalidPlan: It cannot be read, is too long, or no text.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_PLAN_SIZE_BYTES + 1)
        if len(data) > MAX_PLAN_SIZE_BYTES:
            raise InvalidPlan(f"The plan {path} has more than {MAX_PLAN_SIZE_BYTES} bytes.")
        return data.decode("utf-8")
    except OSError as error:
        raise InvalidPlan(f"The plan {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidPlan(f"The plan {path} is not UTF-8 text.") from error


def _print(told: dict[str, Any]) -> None:
    if told["refused"]:
        console.print(escape(f"`rollout create` would refuse this plan: {told['refused']} {told['remedy']}"))
    _print_misfit(told)
    console.print(_stages(told))
    for variant in told["variants"]:
        console.print(
            f"  {variant['variant']}: {decimal(variant['size_bytes'])} for {devices(variant['devices'])}"
        )
    console.print(
        f"  sent: {decimal(told['broadcast_bytes'])} by broadcast, {decimal(told['most_bytes'])} at most"
    )
    install_s = told["typical_install_s"]
    known = install_s is not None
    basis = f"an install takes {duration(install_s)}" if known else "no install of the model is known"
    console.print(
        f"  takes: {duration(told['expected_s'])} expected ({basis}), {duration(told['longest_s'])} at most"
    )
    for wait in told["waits"]:
        console.print(escape(f"    {wait}"))
    if told["left_out"]:
        run = "runs" if told["left_out"] == 1 else "run"
        console.print(f"  {devices(told['left_out'])} {run} the version already")
    for obstacle, number in told["obstacles"].items():
        console.print(f"  {obstacle}: {devices(number)}")
        for refusal in told["refusals"]:
            if refusal["obstacle"] == obstacle:
                console.print(escape(f"    {refusal['device_id']}: {refusal['detail']}"))
    if told["forecast"]:
        console.print(_forecast(told))
    for warning in told["warnings"]:
        console.print(escape(f"  {warning}"))


def _print_misfit(told: dict[str, Any]) -> None:
    """Say why what would be created could not start."""
    if told["misfit"]:
        console.print(escape(told["misfit"]))


def _stages(told: dict[str, Any]) -> Table:
    table = Table(
        title=f"{told['model']} version {told['version']} would reach {devices(told['devices'])}",
        title_justify="left",
    )
    for heading in ("stage", "adds", "of these", "names", "sent at most", "expected"):
        table.add_column(heading, overflow="fold")
    for number, stage in enumerate(told["stages"], start=1):
        more = stage["devices"] - len(stage["named"])
        names = ", ".join(stage["named"]) + (f" and {more:,} more" if more else "")
        strata = "\n".join(f"{attribute}: {_most(counts)}" for attribute, counts in stage["strata"].items())
        table.add_row(
            escape(f"{number} {stage['name']}".rstrip()),
            f"{stage['devices']:,}",
            strata,
            names,
            decimal(stage["most_bytes"]),
            duration(stage["expected_s"]),
        )
    return table


def _most(counts: dict[str, int]) -> str:
    """Return the values that most devices have, each with how many."""
    named = sorted(counts.items(), key=lambda counted: -counted[1])[:MAX_VALUES]
    more = len(counts) - len(named)
    told = ", ".join(escape(f"{value} {count:,}") for value, count in named)
    return f"{told} and {more:,} more" if more else told


def _forecast(told: dict[str, Any]) -> Table:
    """Return what the gate can be expected to say of a version that does no harm."""
    table = Table(title="What the gate can prove, as devices answer now", title_justify="left")
    for heading in ("stage", "metric", "PASS", "after", "judged on", "needed", "finds harm from"):
        table.add_column(heading, overflow="fold")
    for stage in told["forecast"]:
        name = told["stages"][stage["stage"] - 1]["name"]
        for place, metric in enumerate(stage["metrics"]):
            is_first = place == 0
            needed, after_s = metric["devices_needed"], metric["passes_after_s"]
            table.add_row(
                escape(f"{stage['stage']} {name}".rstrip()) if is_first else "",
                escape(f"{metric['metric']} {metric['feature']}".rstrip()),
                metric["expectation"],
                "–" if after_s is None else duration(after_s),
                f"{stage['canaries']:,}" if is_first else "",
                "–" if needed is None else f"{needed:,}",
                _harm(metric),
            )
    return table


def _harm(metric: dict[str, Any]) -> str:
    """Return the least harm that is found, of a quantile as a ratio."""
    if metric["least_harm"] is None:
        return "–"
    is_ratio = metric["metric"] in {"latency", "memory"}
    return f"×{metric['least_harm']:.2g}" if is_ratio else f"{100 * metric['least_harm']:.1f} points"
