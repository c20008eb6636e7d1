"""``muster fleet quality``."""

from __future__ import annotations

from typing import Any

import typer

from hub.cli.answers import ByOption, FromOption, ModelOption, ToOption, VersionOption, WhereOption
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, console, print_table, show


def quality(
    context: typer.Context,
    model: ModelOption,
    by: ByOption = None,
    where: WhereOption = None,
    version: VersionOption = None,
    start: FromOption = None,
    to: ToOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how good a model's answers are: estimated without labels, and by the labels that came."""
    asked = {"model": model, "by": by, "where": where, "version": version, "from": start, "to": to}
    show(client_of(context).get("/fleet/quality", **asked), as_json=as_json, draw=_print_quality)


def _print_quality(answer: dict[str, Any]) -> None:
    items = answer["items"]
    if not items:
        console.print("Nothing was answered in this time by a version that the hub knows.")
        return
    rows = [
        {
            "cohort": item["cohort"],
            "version": item["version"],
            "answers": item["answers"],
            "held_out": _percent(item["held_out_accuracy"]),
            "estimated": _interval(item["estimated_accuracy"]) + (" ?" if item["doubts"] else ""),
            "labelled": item["labelled"],
            "by_labels": _interval(item["labelled_accuracy"]),
            "by_both": _interval(item["powered_accuracy"]),
            "drift": _drift(item),
        }
        for item in items
    ]
    columns = {
        "cohort": "cohort",
        "version": "version",
        "answers": "answers",
        "held_out": "held-out",
        "estimated": "without labels",
        "labelled": "labels",
        "by_labels": "by labels",
        "by_both": "by both",
        "drift": "concept drift",
    }
    if not any(item["cohort"] for item in items):
        columns.pop("cohort")
    print_table(rows, columns, as_json=False)
    for item in items:
        name = f"{item['cohort']}, version" if item["cohort"] else "Version"
        for sentence in item["sentences"]:
            console.print(f"{name} {item['version']}: {sentence}", markup=False)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _interval(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate['value']:.1%} ({estimate['lower']:.1%} to {estimate['upper']:.1%})"


def _drift(item: dict[str, Any]) -> str:
    test = item["concept_drift"]
    if item["concept_drift_devices"]:
        number = len(item["concept_drift_devices"])
        return f"on {number} device{'s' * (number != 1)}" if item["cohort"] == "" else "alarm"
    if test is None:
        return "–"
    return "alarm" if test["alarm"] else ("no" if test["looks"] else "too few labels")
