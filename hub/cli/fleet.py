"""``muster fleet``."""

from __future__ import annotations

import typer

from hub.cli.output import JsonFlag, console, print_json, print_table

app = typer.Typer(help="Ask how the fleet is.", no_args_is_help=True)


@app.command()
def health(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Show the fleet's health."""
    answer = context.obj.client().get("/fleet/health")
    if as_json:
        print_json(answer)
        return
    console.print(f"{answer['devices']} devices, {answer['online']} online")
    for state, number in answer["by_health"].items():
        console.print(f"  {state}: {number}")
    for model, versions in answer["by_version"].items():
        shares = ", ".join(f"version {version}: {number}" for version, number in versions.items())
        console.print(f"{model}: {shares}")
    console.print(f"drift alarms: {answer['drift_alarms']}; refused messages: {answer['refused_messages']}")


@app.command()
def drift(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Show the last look at drift, for each device and feature."""
    rows = list(context.obj.client().pages("/drift"))
    if as_json:
        print_json(rows)
        return
    flat = [
        {"device_id": row["device_id"], "model": row["model"], "version": row["version"], **feature}
        for row in rows
        for feature in row["features"]
    ]
    columns = {
        "device_id": "device",
        "model": "model",
        "version": "version",
        "feature": "feature",
        "alarm": "alarm",
        "distance": "KS distance",
        "threshold": "threshold",
        "psi": "PSI",
        "samples": "samples",
    }
    print_table(flat, columns, as_json=False)
