"""``muster rollout`` and ``muster rollback``."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.errors import MusterError
from fleet.rollout.state import FINAL
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, console, print_table, show, utc
from hub.cli.rollout_plans import plan as plan_command
from hub.cli.rollout_plans import read_text, schema

app = typer.Typer(help="Bring versions to devices, in stages.", no_args_is_help=True)

POLL_S = 0.5
app.command("plan")(plan_command)
app.command("schema")(schema)

ENDED = frozenset(status.value for status in FINAL)

Number = Annotated[int, typer.Argument(min=1, help="The rollout's number.")]
Reason = Annotated[str, typer.Option(help="Why, for the history.")]


@app.command()
def create(
    context: typer.Context,
    model: Annotated[str, typer.Argument()],
    version: Annotated[int, typer.Argument(min=1, help="A released version.")],
    plan: Annotated[
        Path | None, typer.Option(help="Plan file (YAML or JSON); without it, a cautious default.")
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Reach only this device; repeat for more.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which devices come first.")] = 0,
    variant_policy: Annotated[
        VariantPolicy | None, typer.Option(help="Which variant devices run, in place of the plan's choice.")
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Create a rollout; it moves nothing until it is started."""
    client = client_of(context)
    body = {
        "model": model,
        "version": version,
        "plan": None if plan is None else read_text(plan),
        "devices": device or None,
        "seed": seed,
        "variant_policy": variant_policy,
    }
    rollout = client.post("/rollouts", body)
    if start:
        try:
            rollout = client.post(f"/rollouts/{rollout['number']}/start")
        except MusterError as error:
            error.remedy = f"{error.remedy} {_left_behind(rollout['number'])}".lstrip()
            raise
    _print(rollout, as_json=as_json)


@app.command("list")
def list_(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List rollouts, newest first."""
    columns = {
        "number": "rollout",
        "kind": "kind",
        "model": "model",
        "version": "version",
        "status": "status",
        "stage": "stage",
        "counts": "devices",
        "created_at_s": "created",
    }
    rows = client_of(context).pages("/rollouts", model=model)
    empty = "There are no rollouts. `muster rollout create MODEL VERSION` makes one."
    print_table(rows, columns, as_json=as_json, empty=empty)


@app.command()
def status(context: typer.Context, number: Number, as_json: JsonFlag = False) -> None:
    """Show where a rollout is and why."""
    client = client_of(context)
    rollout = client.get(f"/rollouts/{number}")
    rollout["history"] = list(client.pages(f"/rollouts/{number}/history"))
    rollout["shadow"] = client.get(f"/rollouts/{number}/shadow") if rollout["plan"]["shadow_s"] else None
    show(rollout, as_json=as_json, draw=_print_status)


@app.command()
def watch(context: typer.Context, number: Number, as_json: JsonFlag = False) -> None:
    """Follow a rollout until it ends; exit code 0 only if it succeeded. JSON: a line for each change."""
    client = client_of(context)
    revision = -1
    with Live(console=console, auto_refresh=False) if not as_json else nullcontext() as live:
        while True:
            rollout = client.get(f"/rollouts/{number}")
            if live is not None:
                live.update(_picture(rollout), refresh=True)
            elif rollout["revision"] != revision:
                revision = rollout["revision"]
                console.out(json.dumps(rollout), highlight=False)
            if rollout["status"] in ENDED:
                break
            time.sleep(POLL_S)
    if rollout["status"] != "SUCCEEDED":
        raise typer.Exit(1)


@app.command()
def start(context: typer.Context, number: Number, as_json: JsonFlag = False) -> None:
    """Start a rollout."""
    _act(context, number, "start", {}, as_json=as_json)


@app.command()
def pause(context: typer.Context, number: Number, reason: Reason = "", as_json: JsonFlag = False) -> None:
    """Hold a rollout where it is."""
    _act(context, number, "pause", {"reason": reason}, as_json=as_json)


@app.command()
def resume(context: typer.Context, number: Number, as_json: JsonFlag = False) -> None:
    """Let a paused rollout go on."""
    _act(context, number, "resume", {}, as_json=as_json)


@app.command()
def promote(
    context: typer.Context,
    number: Number,
    reason: Annotated[str, typer.Option(help="Why the gate is overridden.")],
    as_json: JsonFlag = False,
) -> None:
    """Go on to the next stage without the gate's word; recorded as an override."""
    _act(context, number, "promote", {"reason": reason}, as_json=as_json)


@app.command()
def abort(
    context: typer.Context,
    number: Number,
    reason: Reason = "",
    roll_back: Annotated[bool, typer.Option("--rollback", help="Bring the devices back as well.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """End a rollout for good."""
    _act(context, number, "abort", {"reason": reason, "roll_back": roll_back}, as_json=as_json)


def rollback(
    context: typer.Context,
    model: Annotated[str, typer.Argument()],
    to: Annotated[int, typer.Option(min=1, help="The released version to go back to.")],
    reason: Reason = "",
    wait: Annotated[bool, typer.Option(help="Wait until every device is back.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Bring every device that runs a newer version of a model back to an older one, now."""
    client = client_of(context)
    rollout = client.post("/rollbacks", {"model": model, "to": to, "reason": reason})
    if wait:
        with console.status(f"rolling {model} back to version {to}"):
            while rollout["status"] not in ENDED:
                time.sleep(POLL_S)
                rollout = client.get(f"/rollouts/{rollout['number']}")
    _print(rollout, as_json=as_json)
    if wait and rollout["status"] != "SUCCEEDED":
        raise typer.Exit(1)


def _act(context: typer.Context, number: int, action: str, body: dict[str, Any], *, as_json: bool) -> None:
    _print(client_of(context).post(f"/rollouts/{number}/{action}", body), as_json=as_json)


def _print(rollout: dict[str, Any], *, as_json: bool) -> None:
    show(rollout, as_json=as_json, draw=lambda shown: console.print(_picture(shown)))


def _left_behind(number: int) -> str:
    """Return what stays of a rollout that was created and could not be started, and how to go on."""
    return f"Rollout {number} was created and waits for `muster rollout start {number}`."


def _print_status(rollout: dict[str, Any]) -> None:
    console.print(_picture(rollout))
    if rollout["shadow"] is not None:
        console.print(_shadow_line(rollout["shadow"]))
    for line in rollout["history"]:
        console.print(f"  {utc(line['at_s'])}  {line['text']}")


def _picture(rollout: dict[str, Any]) -> Table:
    name = f"rollout {rollout['number']}: {rollout['model']} version {rollout['version']}"
    table = Table(
        title=f"{name} {rollout['status']}",
        title_justify="left",
        caption="; ".join(filter(None, _captions(rollout))) or None,
        caption_justify="left",
    )
    for heading in ("stage", "devices", "succeeded", "failed", "verdict"):
        table.add_column(heading)
    for number, stage in enumerate(rollout["stages"], start=1):
        marker = "→ " if number == rollout["stage"] and rollout["status"] not in ENDED else "  "
        table.add_row(
            f"{marker}{number}",
            str(stage["devices"]),
            str(stage["succeeded"]),
            str(stage["failed"]),
            stage["verdict"] or "–",
        )
    return table


def _shadow_line(shadow: dict[str, Any]) -> str:
    """Say how the version did in the shadow of the one that answers."""
    told = f"  shadow: {shadow['disagreed']} of {shadow['compared']} samples disagree"
    if shadow["disagreed_share"] is not None:
        told += f" ({shadow['disagreed_share']:.1%})"
    told += f" on {shadow['devices']} device(s)"
    failed = shadow["errors"] + shadow["not_finite"]
    return told + (f"; {failed} request(s) failed" if failed else "")


def _captions(rollout: dict[str, Any]) -> tuple[str | None, ...]:
    """Return why the rollout is where it is."""
    cause = rollout["cause"]["detail"] if rollout["cause"] else None
    if rollout["status"] == "PAUSED":
        return (f"paused: {rollout['pause_reason']} Resume, promote or abort it.",)
    return (cause or rollout["verdict"],)
