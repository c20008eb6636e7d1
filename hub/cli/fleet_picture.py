"""Drawing drift: histograms beside their references, and a heat map over devices or cohorts.

It needs the extra ``plot``. Colours are of Okabe and Ito's palette and the map ``cividis``, which people with
any kind of colour vision can tell apart (Wong 2011, "Points of view: Color blindness"; Nuñez, Anderton and
Renslow 2018), and reference and current differ in more than colour: one is filled, the other a line.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.protocol.errors import InvalidConfiguration, InvalidInput, NotFound
from hub.cli.answers import write_parts
from hub.cli.picture_data import HeatMap, Panel, Picture, picture_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 130
FORMS = ("png", "svg", "pdf")
_REFERENCE = "#b8b8b8"
_CURRENT = "#0072b2"
_COLUMNS = 3
_PANEL_INCHES = 2.3
_ANNOTATED_CELLS = 12
_MAX_NAME = 24


def draw_drift(file: Path, histograms: dict[str, Any], matrix: dict[str, Any], *, title: str) -> None:
    """Draw a picture and write it in the form that the file's ending names.

    Args:
        file: Where to.
        histograms: As ``/fleet/drift/histograms`` answers.
        matrix: As ``/fleet/drift/matrix`` answers for one span of time.
        title: What is shown.

    Raises:
        InvalidInput: The ending names no form of pictures.
        InvalidConfiguration: The extra ``plot`` is not installed.
        NotFound: There is nothing to draw.
        StorageError: The file cannot be written.
    """
    form = file.suffix.removeprefix(".").lower()
    if form not in FORMS:
        raise InvalidInput(
            f"Pictures are not written as {file.name!r:.80}.", remedy=f"End it in .{', .'.join(FORMS)}."
        )
    picture = picture_of(histograms["items"], matrix["items"], matrix["metric"])
    if picture is None:
        raise NotFound("Nothing was counted in this time.", remedy="Ask for a longer range: --from -7d.")
    data = io.BytesIO()
    with _plain_names():
        figure = drawn(picture, f"{title}, version {picture.version}", matrix["metric"])
        figure.savefig(data, format=form, dpi=DOTS_PER_INCH)
    write_parts(file, [data.getvalue()])


@contextlib.contextmanager
def _plain_names() -> Iterator[None]:
    """Draw texts as they stand: a site or feature with two dollar signs is no formula."""
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise _without_matplotlib() from error
    with rc_context({"text.parse_math": False}):
        yield


def _without_matplotlib() -> InvalidConfiguration:
    return InvalidConfiguration(
        "Pictures are drawn by matplotlib, which is not installed.",
        remedy="Install the extra `plot`: pip install 'muster[plot]'.",
    )


def drawn(picture: Picture, title: str, metric: str) -> Figure:
    """Return the figure of a picture; raises `InvalidConfiguration` without matplotlib.

    Args:
        picture: What is shown.
        title: Above all.
        metric: Of the heat map.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise _without_matplotlib() from error
    columns = _COLUMNS if len(picture.panels) != 4 else 2  # two rows of two leave no gap
    columns = min(columns, len(picture.panels))
    rows = math.ceil(len(picture.panels) / columns)
    map_inches = 1.9 + 0.32 * len(picture.heat_map.features)
    figure = Figure(figsize=(11.0, 0.9 + rows * _PANEL_INCHES + map_inches), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[rows * _PANEL_INCHES + 0.5, map_inches])
    above, below = parts
    figure.suptitle(title, fontsize=13, fontweight="bold")
    axes = above.subplots(rows, columns, squeeze=False)
    for place, one in enumerate(axes.flat):
        if place < len(picture.panels):
            _draw_panel(one, picture.panels[place])
        else:
            one.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    above.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    above.supylabel("density, or share of a category", fontsize=9)
    if picture.left_out:
        shown = (
            f"the {len(picture.panels)} features that are furthest; {picture.left_out} more are only below"
        )
        above.suptitle(shown, fontsize=9, x=0.01, ha="left")
    _draw_map(below, picture.heat_map, metric)
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.set_title(f"{panel.feature}\n", fontsize=10, loc="left", fontweight="bold")
    axes.text(0.0, 1.03, panel.note, transform=axes.transAxes, fontsize=8, color="#444444")
    if panel.labels:
        places = [place + 0.5 for place in range(len(panel.labels))]
        axes.bar(places, panel.reference, width=0.85, color=_REFERENCE, label="reference")
        axes.bar(places, panel.current, width=0.45, color=_CURRENT, label="devices")
        turned = 60 if len(panel.labels) > 8 else 0
        axes.set_xticks(places, panel.labels, rotation=turned, fontsize=8)
    else:
        axes.stairs(panel.reference, panel.edges, fill=True, color=_REFERENCE, label="reference")
        axes.stairs(panel.current, panel.edges, color=_CURRENT, linewidth=1.6, label="devices")
        for edge in (panel.edges[1], panel.edges[-2]):
            axes.axvline(edge, color="#888888", linewidth=0.7, linestyle=":")
    axes.set_ylim(bottom=0.0)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_map(figure: Any, found: HeatMap, metric: str) -> None:
    import numpy as np
    from matplotlib import colormaps

    axes = figure.subplots()
    values = np.array([[math.nan if value is None else value for value in row] for row in found.values])
    if np.isnan(values).all():  # nothing, or a metric that these features do not have
        axes.set_axis_off()
        axes.set_title(f"there is no {metric} of what was counted", fontsize=10, loc="left")
        return
    colours = colormaps["cividis"].with_extremes(bad="#e6e6e6")
    image = axes.imshow(values, aspect="auto", cmap=colours, vmin=0.0, interpolation="nearest")
    turned = 60 if len(found.cohorts) > 8 else 0
    axes.set_xticks(
        range(len(found.cohorts)),
        [_short(name) for name in found.cohorts],
        rotation=turned,
        ha="right" if turned else "center",
        fontsize=8,
    )
    axes.set_yticks(range(len(found.features)), found.features, fontsize=8)
    others = f"; {found.left_out:,} others are nearer" if found.left_out else ""
    axes.set_title(f"{metric} against the reference, furthest first{others}", fontsize=10, loc="left")
    bar = figure.colorbar(image, ax=axes, label=metric, fraction=0.04, pad=0.01)
    bar.ax.tick_params(labelsize=8)
    if len(found.cohorts) <= _ANNOTATED_CELLS:
        dark = np.nanmax(values) * 0.6
        for (row, column), value in np.ndenumerate(values):
            if not math.isnan(value):
                colour = "black" if value > dark else "white"
                axes.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=8, color=colour)


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"
