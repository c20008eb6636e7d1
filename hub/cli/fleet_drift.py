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
from hub.cli.looks import SHOWN, print_looks, strongest_first
from hub.cli.output import JsonFlag, console, print_table

_MAX_COLUMNS = 24
DEFAULT_METRIC = "psi"
PAGE = 500
"""Devices of a page of the last looks."""
_MATRIX_ONLY = ("by", "version", "feature", "resolution", "from", "to")


def drift(
    context: typer.Context,
    matrix: Annotated[bool, typer.Option("--matrix", help="Show feature x cohort x time.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw histograms and a heat map: .png, .svg or .pdf.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    alarms: Annotated[bool, typer.Option("--alarms", help="Last looks: only raised alarms.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Last looks: a row for every feature.")] = False,
    former: Annotated[
        bool, typer.Option("--former", help="Last looks: also of versions that devices run no more.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"Most devices of the last looks; {SHOWN} in a table, all in JSON."),
    ] = None,
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
    if not matrix and plot is None:
        _check_looks(asked, wanted)
        rows = client.pages("/drift", model=model, where=where, alarms=alarms, current=not former, limit=PAGE)
        if wanted is Form.TABLE:
            print_looks(rows, limit or SHOWN, every=every)
        else:
            give_value(strongest_first(rows, limit)[0], wanted, out, console.print)
        return
    _check_matrix(asked, of_looks=alarms or every or former or limit is not None)
    if matrix:
        give(client, "/fleet/drift/matrix", asked, wanted, out, _print_matrix)
    if plot is not None:
        _plot(client, asked, plot)


def _check_looks(asked: dict[str, Any], form: Form) -> None:
    """Refuse what cannot be said of the last looks.

    Raises:
        InvalidInput: The form, or what they should be narrowed by, is of the matrix.
    """
    if form in {Form.CSV, Form.PARQUET}:
        raise InvalidInput("The last looks are given as a table or JSON.", remedy="Add --matrix.")
    narrowed = any(asked[name] not in (None, []) for name in _MATRIX_ONLY)
    if narrowed or asked["metric"] != DEFAULT_METRIC:
        raise InvalidInput(
            "The last looks are narrowed by --model and --where only.",
            remedy="Add --matrix, or --plot FILE.",
        )


def _check_matrix(asked: dict[str, Any], *, of_looks: bool) -> None:
    """Refuse what cannot be said of a matrix or a picture.

    Raises:
        InvalidInput: Something is of the last looks, or it is not said which model is meant.
    """
    if of_looks:
        raise InvalidInput(
            "--alarms, --all, --former and --limit are of the last looks.",
            remedy="Leave out --matrix and --plot.",
        )
    if asked["model"] is None:
        raise InvalidInput("It is not said which model is meant.", remedy="Add --model NAME.")


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
