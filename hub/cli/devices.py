"""``muster device``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleet.protocol.names import checked_name
from hub.cli.boards import print_board
from hub.cli.client import client_of
from hub.cli.measurements import print_device_measurements
from hub.cli.output import JsonFlag, ago, console, print_table, show, utc
from hub.cli.remote import print_wishes
from hub.cli.timeline import print_timeline

app = typer.Typer(help="Invite, list and show devices.", no_args_is_help=True)


@app.command()
def token(
    context: typer.Context,
    hours: Annotated[float, typer.Option(min=0.01, max=720, help="How long it can be used.")] = 24.0,
    as_json: JsonFlag = False,
) -> None:
    """Make a one-time token with which one device can enrol."""
    answer = client_of(context).post("/enrolment-tokens", {"lifetime_s": hours * 3600})
    show(answer, as_json=as_json, draw=lambda made: console.out(made["token"], highlight=False))


@app.command("list")
def list_(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the devices of the fleet."""
    rows = list(client_of(context).pages("/devices"))
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
    empty = "There are no devices. `muster device token` makes a token with which one can enrol."
    print_table(rows, columns, as_json=as_json, empty=empty)


@app.command("show")
def show_device(
    context: typer.Context,
    device_id: Annotated[str, typer.Argument()],
    as_json: JsonFlag = False,
) -> None:
    """Show one device: what it runs and should run, what is wished of it, and what happened to it."""
    client = client_of(context)
    checked_name(device_id, "device id")  # or it would not be one step of the path
    device = client.get(f"/devices/{device_id}")
    asked = {"limit": 20, "from": "1970-01-01", "kind": ["deployment", "incident", "alarm", "order"]}
    device["timeline"] = client.get(f"/devices/{device_id}/timeline", **asked)["items"]
    device["measurements"] = client.get(f"/devices/{device_id}/measurements")
    device["board"] = client.get(f"/devices/{device_id}/board")
    show(device, as_json=as_json, draw=_print)


def _print(device: dict[str, Any]) -> None:
    console.print(
        f"[bold]{device['device_id']}[/bold] {device['health']}, seen {ago(device['last_seen_at_s'])}"
    )
    for reason in device["reasons"]:
        console.print(f"  {reason}")
    _print_itself(device)
    if device["tags"]:
        console.print(f"tags:      {', '.join(device['tags'])}")
    if device["quarantine"]:
        console.print(f"quarantine: {_until(device['quarantine'])}", highlight=False)
    print_wishes(device)
    print_board(device["board"])
    columns = {
        "model": "model",
        "version": "version",
        "variant": "variant",
        "phase": "phase",
        "waiting_for": "waiting for",
    }
    print_table(device["models"], columns, as_json=False, title="runs")
    columns = {
        "model": "model",
        "version": "version",
        "variant": "variant",
        "alternatives": "or",
        "variant_policy": "by",
        "deployment_id": "deployment",
    }
    print_table(device["desired"], columns, as_json=False, title="should run")
    if device["actions"]:
        print_table(
            device["actions"], {"at_s": "when", "by": "who", "text": "what"}, as_json=False, title="operators"
        )
    if device["diagnostics"]:
        columns = {"request_id": "request", "received_at_s": "came", "size_bytes": "bytes"}
        print_table(device["diagnostics"], columns, as_json=False, title="diagnostic bundles")
    print_device_measurements(device["measurements"])
    print_timeline(device["timeline"])


def _print_itself(device: dict[str, Any]) -> None:
    """Print what targets ask for: what the device was enrolled with, and what it says of itself."""
    if device["attributes"]:
        attributes = ", ".join(f"{key}={value}" for key, value in device["attributes"].items())
        console.print(f"enrolled:  {attributes}", markup=False)
    if device["agent_version"]:  # it has announced itself
        runtimes = (f"{name} {version}" for name, version in device["runtimes"].items())
        said = [device["hardware"], device["architecture"], f"agent {device['agent_version']}", *runtimes]
        console.print(f"machine:   {', '.join(filter(None, said))}", markup=False)


def _until(quarantine: dict[str, Any]) -> str:
    since, until = utc(quarantine["since_s"]), utc(quarantine["until_s"])
    return f"since {since} nothing that it sends is taken, because it was too much; until {until}"
