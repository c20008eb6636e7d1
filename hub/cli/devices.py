"""``muster device``."""

from __future__ import annotations

from typing import Annotated

import typer

from hub.cli.output import JsonFlag, ago, console, print_json, print_table

app = typer.Typer(help="Invite, list and show devices.", no_args_is_help=True)


@app.command()
def token(
    context: typer.Context,
    hours: Annotated[float, typer.Option(min=0.01, max=720, help="How long it can be used.")] = 24.0,
    as_json: JsonFlag = False,
) -> None:
    """Make a one-time token with which one device can enrol."""
    answer = context.obj.client().post("/enrolment-tokens", {"lifetime_s": hours * 3600})
    if as_json:
        print_json(answer)
    else:
        console.out(answer["token"], highlight=False)


@app.command("list")
def list_(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the devices of the fleet."""
    rows = list(context.obj.client().pages("/devices"))
    if not as_json:
        for row in rows:
            row["runs"] = ", ".join(f"{m['model']} {m['version']}" for m in row["models"]) or None
    columns = {
        "device_id": "device",
        "health": "health",
        "reasons": "because",
        "runs": "runs",
        "attributes": "attributes",
        "last_seen_at_s": "seen",
    }
    print_table(rows, columns, as_json=as_json)


@app.command()
def show(
    context: typer.Context,
    device_id: Annotated[str, typer.Argument()],
    as_json: JsonFlag = False,
) -> None:
    """Show one device: what it runs, what it should run, and what happened to it."""
    client = context.obj.client()
    device = client.get(f"/devices/{device_id}")
    timeline = client.get(f"/devices/{device_id}/timeline", limit=20)["items"]
    if as_json:
        print_json({**device, "timeline": timeline})
        return
    console.print(f"[bold]{device_id}[/bold] {device['health']}, seen {ago(device['last_seen_at_s'])}")
    for reason in device["reasons"]:
        console.print(f"  {reason}")
    columns = {"model": "model", "version": "version", "variant": "variant", "phase": "phase"}
    print_table(device["models"], columns, as_json=False, title="runs")
    columns = {"model": "model", "version": "version", "variant": "variant", "deployment_id": "deployment"}
    print_table(device["desired"], columns, as_json=False, title="should run")
    for entry in timeline:
        entry["why"] = entry["cause"]["detail"] if entry["cause"] else None
    columns = {
        "received_at_s": "when",
        "kind": "what",
        "model": "model",
        "version": "version",
        "state": "state",
        "why": "why",
    }
    print_table(timeline, columns, as_json=False, title="timeline")
