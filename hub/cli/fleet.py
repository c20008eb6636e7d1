"""``muster fleet``."""

from __future__ import annotations

from typing import Any

import typer

from hub.cli import fleet_health
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, print_table, show

app = typer.Typer(help="Ask how the fleet is.", no_args_is_help=True)


app.command()(fleet_health.health)
app.command()(fleet_health.alarms)


@app.command()
def drift(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Show the last look at drift, for each device and feature."""
    show(list(client_of(context).pages("/drift")), as_json=as_json, draw=_print_drift)


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
