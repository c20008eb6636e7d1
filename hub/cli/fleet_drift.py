"""``muster fleet drift``: the last looks, the matrix, and the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fleet.protocol.errors import InvalidInput
from hub.cli.answers import (
    ByOption,
    FeatureOption,
    Form,
    FormOption,
    FromOption,
    OutOption,
    ResolutionOption,
    ToOption,
    VersionOption,
    WhereOption,
    form_of,
    give,
    give_value,
)
from hub.cli.client import Client, client_of
from hub.cli.fleet_picture import draw_drift
from hub.cli.fleet_query import span_name
from hub.cli.output import JsonFlag, console, print_table

_MAX_COLUMNS = 24
DEFAULT_METRIC = "psi"


def drift(
    context: typer.Context,
    matrix: Annotated[bool, typer.Option("--matrix", help="Show feature x cohort x time.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw histograms and a heat map, as PNG.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    metric: Annotated[str, typer.Option(help="psi, ks, wasserstein, jensen_shannon, …")] = DEFAULT_METRIC,
    by: ByOption = None,
    where: WhereOption = None,
    version: VersionOption = None,
    feature: FeatureOption = None,
    resolution: ResolutionOption = None,
    start: FromOption = None,
    to: ToOption = None,
    form: FormOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the last look at drift of each device; or a matrix over time; or draw a picture."""
    client, wanted = client_of(context), form_of(form, out, as_json=as_json)
    if not matrix and plot is None:
        if wanted in {Form.CSV, Form.PARQUET}:
            raise InvalidInput("The last looks are given as a table or JSON.", remedy="Add --matrix.")
        narrowed = (by, where, version, feature, resolution, start, to)
        if metric != DEFAULT_METRIC or any(value is not None and value != [] for value in narrowed):
            raise InvalidInput(
                "The last looks are narrowed by --model only.", remedy="Add --matrix, or --plot FILE."
            )
        give_value(list(client.pages("/drift", model=model)), wanted, out, _print_looks)
        return
    if model is None:
        raise InvalidInput("It is not said which model is meant.", remedy="Add --model NAME.")
    asked: dict[str, Any] = {
        "model": model,
        "metric": metric,
        "by": by,
        "where": where,
        "version": version,
        "feature": feature,
        "resolution": resolution,
        "from": start,
        "to": to,
    }
    if matrix:
        give(client, "/fleet/drift/matrix", asked, wanted, out, _print_matrix)
    if plot is not None:
        _plot(client, asked, plot)


def _plot(client: Client, asked: dict[str, Any], file: Path) -> None:
    cells = client.get(
        "/fleet/drift/matrix", **{**asked, "by": asked["by"] or ["device"], "resolution": "whole"}
    )
    only = {name: value for name, value in asked.items() if name not in {"metric", "by", "resolution"}}
    counted = client.get("/fleet/drift/histograms", **only)
    start, end = span_name(counted["start_s"], 60), span_name(counted["end_s"], 60)
    draw_drift(file, counted, cells, title=f"{asked['model']}, {start} to {end} UTC")
    console.out(f"The picture is in {file}.", highlight=False)


def _print_matrix(answer: dict[str, Any]) -> None:
    cells = answer["items"]
    if not cells:
        console.print("Nothing was counted in this time.")
        return
    starts = sorted({cell["start_s"] for cell in cells})
    left_out = max(0, len(starts) - _MAX_COLUMNS)
    starts = starts[left_out:]
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    for cell in cells:
        row = rows.setdefault((cell["feature"], cell["cohort"], cell["version"]), {**cell, "samples": 0})
        row["samples"] += cell["samples"]
        row[str(cell["start_s"])] = cell["value"]
    columns = {"feature": "feature", "cohort": "cohort", "version": "version", "samples": "values"}
    is_whole = starts == [int(answer["start_s"])]
    for start_s in starts:
        columns[str(start_s)] = "in all" if is_whole else span_name(start_s, answer["resolution_s"])
    title = f"{answer['metric']} against the reference, times in UTC"
    print_table(rows.values(), columns, as_json=False, title=title)
    if left_out:
        console.print(f"{left_out} earlier spans are not shown; --format csv has them.")


def _print_looks(rows: list[dict[str, Any]]) -> None:
    flat = [
        {
            "device": row["device_id"],
            "version": f"{row['model']} {row['version']}",
            "strength": f"{feature['evidence']:.1f} / {feature['threshold']:.1f}",
            "most": _most(feature),
            "moved": "" if feature["wasserstein"] is None else f"{feature['wasserstein']:.2f} σ",
            **feature,
        }
        for row in rows
        for feature in row["features"]
    ]
    columns = {
        "device": "device",
        "version": "version",
        "feature": "feature",
        "alarm": "alarm",
        "strength": "evidence / needed",
        "most": "most of it",
        "distance": "KS",
        "moved": "moved",
        "samples": "values",
    }
    print_table(flat, columns, as_json=False)


def _most(feature: dict[str, Any]) -> str:
    if feature["evidence"] <= 0:  # the split that says most says nothing then
        return "–"
    return f"{feature['share']:.0%} {feature['split']}, not {feature['expected']:.0%}"
