"""The last looks at drift as people read them: alarms first, then by evidence, a row for each device."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

from hub.cli.output import console, print_table

SHOWN = 50
"""Looks in a table, unless more are asked for."""
_OF_A_FEATURE = {
    "strength": "evidence / needed",
    "most": "most of it",
    "distance": "KS",
    "moved": "moved",
    "samples": "values",
}
_OF_A_DEVICE = {"device": "device", "version": "version", "alarm": "alarm", "feature": "feature"}


def strongest_first(rows: Iterable[dict[str, Any]], limit: int | None) -> tuple[list[dict[str, Any]], int]:
    """Return looks by falling strength, and how many more there are; no more than ``limit`` are held.

    Args:
        rows: As the API gives them.
        limit: Most looks; None for all.
    """
    if limit is None:
        return sorted(rows, key=_strength, reverse=True), 0
    count = 0

    def counted() -> Iterable[dict[str, Any]]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    strongest = heapq.nlargest(limit, counted(), key=_strength)
    return strongest, count - len(strongest)


def print_looks(rows: Iterable[dict[str, Any]], limit: int, *, every: bool) -> None:
    """Print looks, the strongest first.

    Args:
        rows: As the API gives them.
        limit: Most looks.
        every: A row for each feature in place of one for each device and version.
    """
    strongest, left_out = strongest_first(rows, limit)
    if every:
        flat = [_of_feature(row, feature) for row in strongest for feature in _by_strength(row)]
        print_table(flat, {**_OF_A_DEVICE, **_OF_A_FEATURE}, as_json=False)
    else:
        columns = {**_OF_A_DEVICE, **_OF_A_FEATURE, "quiet": "quiet"}
        print_table([_of_device(row) for row in strongest], columns, as_json=False)
    if left_out:
        console.print(f"{left_out:,} more are not shown; --limit {limit + left_out} shows them.")


def _of_device(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a device: numbers of its strongest feature, and the names of all in alarm."""
    features = _by_strength(row)
    if not features:
        return {**_named(row), "alarm": row["alarm"], "quiet": 0}
    alarmed = [feature["feature"] for feature in features if feature["alarm"]]
    named = alarmed or [features[0]["feature"]]
    return {
        **_of_feature(row, features[0]),
        "alarm": row["alarm"],
        "feature": named,
        "quiet": len(features) - len(alarmed),
    }


def _of_feature(row: dict[str, Any], feature: dict[str, Any]) -> dict[str, Any]:
    return {
        **feature,
        **_named(row),
        "strength": f"{feature['evidence']:.1f} / {feature['threshold']:.1f}",
        "most": _most(feature),
        "moved": "" if feature["wasserstein"] is None else f"{feature['wasserstein']:.2f} σ",
    }


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return {"device": row["device_id"], "version": f"{row['model']} {row['version']}"}


def _by_strength(row: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(row["features"], key=lambda feature: (not feature["alarm"], -feature["evidence"]))


def _strength(row: dict[str, Any]) -> tuple[bool, float]:
    evidence = [feature["evidence"] for feature in row["features"]]
    return row["alarm"], max(evidence, default=float("-inf"))


def _most(feature: dict[str, Any]) -> str:
    if feature["evidence"] <= 0:  # the split that says most says nothing then
        return "–"
    return f"{feature['share']:.0%} {feature['split']}, not {feature['expected']:.0%}"
