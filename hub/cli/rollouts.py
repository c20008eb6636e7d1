"""``muster rollout``: the commands of rollouts, put together; create, list and status are here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.errors import MusterError
from hub.cli import rollout_back, rollout_explain, rollout_plans, rollout_watch, rollout_words
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, print_table, show
from hub.cli.rollout_pictures import Number, print_rollout, print_status, whereabouts
from hub.cli.rollout_plans import read_text

app = typer.Typer(help="Bring versions to devices, in stages.", no_args_is_help=True)

app.command("plan")(rollout_plans.plan)
app.command("schema")(rollout_plans.schema)
app.command("explain")(rollout_explain.explain)
app.command("devices")(rollout_explain.list_devices)
app.command("watch")(rollout_watch.watch)
app.command("start")(rollout_words.start)
app.command("pause")(rollout_words.pause)
app.command("resume")(rollout_words.resume)
app.command("approve")(rollout_words.approve)
app.command("promote")(rollout_words.promote)
app.command("abort")(rollout_words.abort)
app.command("rollback")(rollout_back.rollback)


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
    print_rollout(rollout, as_json=as_json)


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
        "whereabouts": "devices",
        "created_at_s": "created",
    }
    rows = client_of(context).pages("/rollouts", model=model)
    if not as_json:
        rows = ({**row, "whereabouts": whereabouts(row)} for row in rows)
    empty = "There are no rollouts. `muster rollout create MODEL VERSION` makes one."
    print_table(rows, columns, as_json=as_json, empty=empty)


@app.command()
def status(context: typer.Context, number: Number, as_json: JsonFlag = False) -> None:
    """Show where a rollout is and why."""
    client = client_of(context)
    rollout = client.get(f"/rollouts/{number}")
    rollout["history"] = list(client.pages(f"/rollouts/{number}/history"))
    rollout["shadow"] = client.get(f"/rollouts/{number}/shadow") if rollout["plan"]["shadow_s"] else None
    show(rollout, as_json=as_json, draw=print_status)


def _left_behind(number: int) -> str:
    """Return what stays of a rollout that was created and could not be started, and how to go on."""
    return f"Rollout {number} was created and waits for `muster rollout start {number}`."
