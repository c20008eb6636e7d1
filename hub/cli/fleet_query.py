"""``muster fleet query`` and ``muster fleet compare``."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from hub.cli.answers import (
    ByOption,
    FeatureOption,
    FormOption,
    FromOption,
    ModelOption,
    OutOption,
    ResolutionOption,
    ToOption,
    VersionOption,
    WhereOption,
    form_of,
    give,
)
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, console, print_table


def query(
    context: typer.Context,
    metric: Annotated[list[str], typer.Argument(help="predictions, error_share, latency_p99_us, psi, …")],
    model: ModelOption,
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
    """Show metrics of a model over time, by cohort, version or device."""
    asked = {
        "metric": metric,
        "model": model,
        "by": by,
        "where": where,
        "version": version,
        "feature": feature,
        "resolution": resolution,
        "from": start,
        "to": to,
    }
    wanted = form_of(form, out, as_json=as_json)
    give(client_of(context), "/fleet/query", asked, wanted, out, _print_series)


def compare(
    context: typer.Context,
    model: ModelOption,
    left: Annotated[str, typer.Option(help="version=3, a target, or version=3 and a target.")],
    right: Annotated[str, typer.Option(help="Likewise.")],
    start: FromOption = None,
    to: ToOption = None,
    form: FormOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare two cohorts or versions: errors, latency, accuracy, confidence, and every feature."""
    asked = {"model": model, "left": left, "right": right, "from": start, "to": to}
    wanted = form_of(form, out, as_json=as_json)
    give(client_of(context), "/fleet/compare", asked, wanted, out, _print_comparison)


def span_name(start_s: float, resolution_s: int) -> str:
    """Return the start of a span as people read it; in UTC, in which spans begin and ``--from`` is read."""
    form = "%Y-%m-%d" if resolution_s >= 86400 else "%m-%d %H:%M"
    return time.strftime(form, time.gmtime(start_s))


def _print_series(answer: dict[str, Any]) -> None:
    rows = answer["items"]
    if not rows:
        console.print("Nothing was counted in this time.")
        return
    for row in rows:
        row["when"] = span_name(row["start_s"], answer["resolution_s"])
    names = [name for name in rows[0] if name not in {"when", "start_s"}]
    print_table(rows, {"when": "when (UTC)", **{name: name for name in names}}, as_json=False)


def _print_comparison(answer: dict[str, Any]) -> None:
    for row in answer["items"]:
        sign = "[bold]≠[/bold]" if row["is_shown"] else " "
        console.print(f"{sign} ", end="")
        console.out(row["sentence"], highlight=False)
    console.print(
        f"≠: a difference is shown. All intervals hold together with {answer['confidence']:.0%},"
        " however often one looks."
    )
