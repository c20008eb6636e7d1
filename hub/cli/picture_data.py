"""What a picture of drift shows, worked out from the hub's answers: the drawing itself is elsewhere.

Histograms are densities, because bins are as wide as the reference's quantiles are apart: the height of a bar
is its share of the values by its width. Narrow bins are joined until bars are wide enough to see. Outermost
bins reach as far as the reference's extremes do; they are cut where they are much wider than the others
together, and beyond them stands a bar of fixed width for what is below and above all edges.
"""

from __future__ import annotations

from typing import Any, NamedTuple

MAX_PANELS = 12
MAX_COHORTS = 40
MAX_BARS = 24
MAX_CATEGORIES = 20
_NEARLY = 0.999  # edges that are evenly apart are so but for rounding
_OUTER = 0.06
"""Width of the bars for what is below and above, in widths of what is shown between."""
_TAIL = 0.4
"""Most that is shown of an outermost bin, in widths of all bins between the two."""


class Panel(NamedTuple):
    """The histogram of one feature.

    Attributes:
        feature: Its name.
        note: How far the two are apart, on how many values, and what is missing.
        edges: Of the bars, one more than there are bars; of categories 0, 1, ….
        reference: Height of each bar, see the head of this file; of categories their shares.
        current: Likewise.
        labels: Of the bars of a categorical feature; empty for a numeric one.
    """

    feature: str
    note: str
    edges: list[float]
    reference: list[float]
    current: list[float]
    labels: list[str]


class HeatMap(NamedTuple):
    """A metric by feature and cohort.

    Attributes:
        features: The rows, those that are furthest from the reference first.
        cohorts: The columns, likewise.
        values: By row and column; None where nothing was counted.
        left_out: How many cohorts there are beside these.
    """

    features: list[str]
    cohorts: list[str]
    values: list[list[float | None]]
    left_out: int


class Picture(NamedTuple):
    """All of it, for one version of a model.

    Attributes:
        version: The version.
        panels: Histograms, those that are furthest from the reference first.
        left_out: How many features have no histogram.
        heat_map: Of the same version.
    """

    version: int
    panels: list[Panel]
    left_out: int
    heat_map: HeatMap


def picture_of(histograms: list[dict[str, Any]], cells: list[dict[str, Any]], metric: str) -> Picture | None:
    """Return what is drawn: of the newest version that counted anything; None if none did.

    Args:
        histograms: From ``/fleet/drift/histograms``.
        cells: From ``/fleet/drift/matrix`` over one span of time.
        metric: What features are ordered by.
    """
    if not histograms:
        return None
    version = max(found["version"] for found in histograms)
    of_version = [found for found in histograms if found["version"] == version]
    of_version.sort(key=lambda found: -(found["metrics"][metric] or 0.0))
    return Picture(
        version=version,
        panels=[panel_of(found, metric) for found in of_version[:MAX_PANELS]],
        left_out=max(0, len(of_version) - MAX_PANELS),
        heat_map=heat_map_of([cell for cell in cells if cell["version"] == version]),
    )


def panel_of(found: dict[str, Any], metric: str) -> Panel:
    """Return the histogram of a feature, args like `picture_of`."""
    reference, current, edges = found["reference"], found["current"], found["edges"]
    note = _note(found, metric)
    if edges is not None:
        bars = _bars(edges)
        drawn = _drawn(edges, bars)
        heights = [_densities(side, edges, bars, drawn[1] - drawn[0]) for side in (reference, current)]
        return Panel(found["feature"], note, drawn, heights[0], heights[1], [])
    known = len(reference) - 1
    largest = sorted(range(known), key=lambda i: -(_share(reference, i) + _share(current, i)))
    shown = sorted(largest[:MAX_CATEGORIES])
    labels = [str(i) for i in shown] + ["unseen"]
    sides = [[_share(side, i) for i in [*shown, known]] for side in (reference, current)]
    return Panel(
        found["feature"], note, [float(i) for i in range(len(labels) + 1)], sides[0], sides[1], labels
    )


def heat_map_of(cells: list[dict[str, Any]]) -> HeatMap:
    """Return the heat map of a version's cells, args like `picture_of`."""
    known = {(cell["feature"], cell["cohort"]): cell["value"] for cell in cells}
    furthest: dict[str, float] = {}
    for names, value in known.items():
        for name in names:
            furthest[name] = max(furthest.get(name, 0.0), value or 0.0)
    features = sorted({feature for feature, _ in known}, key=lambda name: (-furthest[name], name))
    cohorts = sorted({cohort for _, cohort in known}, key=lambda name: (-furthest[name], name))
    shown = cohorts[:MAX_COHORTS]
    values = [[known.get((feature, cohort)) for cohort in shown] for feature in features]
    return HeatMap(features, shown, values, len(cohorts) - len(shown))


def _bars(edges: list[float]) -> list[tuple[int, int]]:
    """Return which bins make up each bar: the first one, and the one after the last, counted from 0."""
    bins = len(edges) - 1
    first, last = (1, bins - 1) if bins > MAX_BARS else (0, bins)
    least = (edges[last] - edges[first]) / MAX_BARS
    bars, begun = [(0, first)] * bool(first), first
    for end in range(first + 1, last + 1):
        if edges[end] - edges[begun] >= least * _NEARLY or end == last:
            bars.append((begun, end))
            begun = end
    return bars + [(last, bins)] * (last < bins)


def _drawn(edges: list[float], bars: list[tuple[int, int]]) -> list[float]:
    """Return the edges of the bars as they are drawn: outermost ones cut, and those beyond them added."""
    inner = [edges[first] for first, _ in bars] + [edges[-1]]
    if len(inner) > 3:
        tail = (inner[-2] - inner[1]) * _TAIL
        inner = [max(inner[0], inner[1] - tail), *inner[1:-1], min(inner[-1], inner[-2] + tail)]
    outer = (inner[-1] - inner[0]) * _OUTER
    return [inner[0] - outer, *inner, inner[-1] + outer]


def _densities(
    cells: list[int], edges: list[float], bars: list[tuple[int, int]], outer: float
) -> list[float]:
    """Return the height of each bar, with those beyond the edges."""
    total = max(1, sum(cells))
    inside = [sum(cells[first + 1 : end + 1]) / total / (edges[end] - edges[first]) for first, end in bars]
    return [cells[0] / total / outer, *inside, cells[-1] / total / outer]


def _share(cells: list[int], index: int) -> float:
    return cells[index] / max(1, sum(cells))


def _note(found: dict[str, Any], metric: str) -> str:
    value = found["metrics"][metric]
    values = sum(found["current"]) + found["current_missing"]
    note = f"{metric} {'–' if value is None else format(value, '.3g')}, {values:,} values"
    missing = found["current_missing"] / max(1, values)
    before = found["reference_missing"] / max(1, sum(found["reference"]) + found["reference_missing"])
    if missing or before:
        note += f", {missing:.1%} missing, not {before:.1%}"
    outside = found["metrics"]["outside"]
    return f"{note}, {outside:.1%} outside" if outside else note
