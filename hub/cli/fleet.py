"""``muster fleet``."""

from __future__ import annotations

from typing import Any

import typer

from fleet.health import NO_VERSION
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, console, print_table, show

app = typer.Typer(help="Ask how the fleet is.", no_args_is_help=True)


@app.command()
def health(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Show the fleet's health."""
    show(client_of(context).get("/fleet/health"), as_json=as_json, draw=_print_health)


@app.command()
def drift(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Show the last look at drift, for each device and feature."""
    show(list(client_of(context).pages("/drift")), as_json=as_json, draw=_print_drift)


def _print_health(answer: dict[str, Any]) -> None:
    console.print(f"{answer['devices']} devices, {answer['online']} online")
    console.print(", ".join(f"{number} {health}" for health, number in answer["by_health"].items() if number))
    for model in answer["models"]:
        by_version = model["by_version"].items()
        versions = ", ".join(f"{number} on {_named(version)}" for version, number in by_version)
        console.print(f"{model['model']}: {versions}; {model['as_desired']} of {model['devices']} as desired")
        if model["drifting"]:
            console.print(f"  drift alarm: {', '.join(model['drifting'])}")
    columns = {"device_id": "device", "health": "health", "reasons": "because"}
    if answer["unwell"]:
        print_table(answer["unwell"], columns, as_json=False)
    if answer["refused_messages"]:
        console.print(f"{answer['refused_messages']} messages could not be taken in")


def _named(version: str) -> str:
    return "no version" if version == NO_VERSION else f"version {version}"


def _print_drift(rows: list[dict[str, Any]]) -> None:
    flat = [
        {
            "device": row["device_id"],
            "runs": f"{row['model']} {row['version']}",
            "strength": f"{feature['evidence']:.1f} / {feature['threshold']:.1f}",
            "most": f"{feature['share']:.0%} {feature['split']}, not {feature['expected']:.0%}",
            "moved": "" if feature["wasserstein"] is None else f"{feature['wasserstein']:.2f} σ",
            **feature,
        }
        for row in rows
        for feature in row["features"]
    ]
    columns = {
        "device": "device",
        "runs": "runs",
        "feature": "feature",
        "alarm": "alarm",
        "strength": "evidence / needed",
        "most": "most of it",
        "distance": "KS",
        "moved": "moved",
        "samples": "values",
    }
    print_table(flat, columns, as_json=False)
