"""``muster dataset``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fleet.protocol.names import checked_name
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, console, print_table, show

app = typer.Typer(help="Register and list datasets.", no_args_is_help=True)


@app.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Its name; it stands for these bytes for ever.")],
    file: Annotated[Path, typer.Argument(help="An .npz file with features, labels and classes.")],
    as_json: JsonFlag = False,
) -> None:
    """Check a dataset and register it with its digest."""
    checked_name(name, "dataset name")  # or it would not be one step of the path
    dataset = client_of(context).upload(f"/datasets/{name}", file)
    show(dataset, as_json=as_json, draw=_print)


@app.command("list")
def list_(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the registered datasets."""
    columns = {"name": "name", "samples": "samples", "feature_shape": "shape", "sha256": "SHA-256"}
    rows = client_of(context).pages("/datasets")
    empty = "There are no datasets. `muster dataset add NAME FILE` uploads one."
    print_table(rows, columns, as_json=as_json, empty=empty)


def _print(dataset: dict[str, Any]) -> None:
    console.print(f"{dataset['name']}: {dataset['samples']} samples, SHA-256 {dataset['sha256']}")
