"""The tables of the converters' benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.judging import Figures, Key
from benchmarks.measure import Installation
from benchmarks.models import Model
from benchmarks.routes import MUSTER_TFLITE, OURS, Conversion, Route
from benchmarks.table import table

_MEGABYTE = 1e6


def environments_table(environments: Mapping[str, Installation | None]) -> str:
    """Return how large the environments are that the routes ran in."""
    ours = environments[OURS]
    rows = []
    for name, each in environments.items():
        if each is None:
            rows.append([name, *"---"])
            continue
        ratio = "-" if ours is None else f"{each.size_bytes / ours.size_bytes:.2f}"
        rows.append([name, str(each.packages), f"{each.size_bytes / _MEGABYTE:.0f}", ratio])
    return table("Installed", ["environment", "packages", "MB", "to ours"], rows)


def conversions_table(model: Model, conversions: Mapping[Route, Conversion]) -> str:
    """Return what the conversions of a model cost."""
    ours = conversions[MUSTER_TFLITE]
    return table(
        f"Conversion of {model.name}",
        ["route", "cold s", "to ours", "warm s", "to ours", "peak MB"],
        [[route.name, *_costs(each, ours)] for route, each in conversions.items()],
        [f"{r.name}: {each.cold.failure}" for r, each in conversions.items() if each.cold.failure],
    )


def _costs(conversion: Conversion, ours: Conversion) -> Sequence[str]:
    if conversion.cold.failure:
        return "-----"
    return [
        f"{conversion.cold.wall_s:.2f}",
        "-" if ours.cold.failure else f"{conversion.cold.wall_s / ours.cold.wall_s:.2f}",
        f"{conversion.warm_s:.3f}",
        "-" if ours.cold.failure else f"{conversion.warm_s / ours.warm_s:.2f}",
        f"{conversion.cold.peak_bytes / _MEGABYTE:.0f}",
    ]


def files_table(model: Model, files: Mapping[Key, Figures | str]) -> str:
    """Return how good the files of a model are."""
    metric = "accuracy %" if model.metric == "accuracy" else "AUROC × 100"
    return table(
        f"Files of {model.name}",
        ["route", "variant", "bytes", "ratio", metric, "lost", "runs on", "µs", "to fp32"],
        [[*key, *_cells(each)] for key, each in files.items()],
        [f"{', '.join(key)}: {each}" for key, each in files.items() if isinstance(each, str)],
    )


def _cells(each: Figures | str) -> Sequence[str]:
    if isinstance(each, str):
        return "-------"
    return [
        *(f"{each.size_bytes:,}", f"{each.size_ratio:.3f}", f"{each.points:.2f}", f"{each.points_lost:.2f}"),
        *(each.runtime, f"{each.latency_us:.1f}"),
        "-" if each.latency_ratio is None else f"{each.latency_ratio:.2f}",
    ]
