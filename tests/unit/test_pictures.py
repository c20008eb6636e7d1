"""Pictures of drift: what is drawn is what was counted, and a real PNG comes of it."""

from __future__ import annotations

import struct
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib.patches import StepPatch

from fleet.protocol.errors import InvalidConfiguration, NotFound
from hub.cli.fleet_picture import DOTS_PER_INCH, draw_drift, drawn
from hub.cli.picture_data import MAX_BARS, MAX_COHORTS, MAX_PANELS, heat_map_of, panel_of, picture_of


def _numeric(
    name: str = "input.mean", *, psi: float = 0.1, version: int = 1, bins: int = 10
) -> dict[str, Any]:
    return {
        "feature": name,
        "version": version,
        "edges": [float(edge) for edge in range(bins + 1)],
        "reference": [0, *[10] * bins, 0],
        "reference_missing": 0,
        "current": [50, *[0] * (bins - 1), 40, 10],
        "current_missing": 25,
        "minimum": -3.0,
        "maximum": 11.0,
        "metrics": {"psi": psi, "outside": 0.6},
    }


def _cell(feature: str, cohort: str, value: float | None, version: int = 1) -> dict[str, Any]:
    return {"feature": feature, "cohort": cohort, "version": version, "value": value}


def test_a_bar_is_a_share_by_its_width() -> None:
    panel = panel_of(_numeric(), "psi")
    assert panel.edges[1:-1] == [float(edge) for edge in range(11)]
    assert panel.reference == [0.0, *[0.1] * 10, 0.0]
    widths = [right - left for left, right in pairwise(panel.edges)]
    shares = [height * width for height, width in zip(panel.current, widths, strict=True)]
    assert shares == pytest.approx([0.5, *[0.0] * 9, 0.4, 0.1])
    assert panel.note == "psi 0.1, 125 values, 20.0% missing, not 0.0%, 60.0% outside"


def test_narrow_bins_are_joined_and_long_tails_cut() -> None:
    edges = [-1000.0, *[i / 100 for i in range(101)], 1000.0]
    cells = [0, 5, *[1] * 100, 5, 0]
    found = {**_numeric(), "edges": edges, "reference": cells, "current": cells, "current_missing": 0}
    panel = panel_of(found, "psi")
    assert len(panel.reference) <= MAX_BARS + 4
    assert panel.edges[0] > -1.0
    assert panel.edges[-1] < 2.0
    body = panel.reference[2:-2]
    assert body == pytest.approx([100 / 110] * len(body))  # an even density, whatever was joined
    assert panel.reference[1] == pytest.approx(5 / 110 / 1000.0)
    assert panel.reference == panel.current


def test_categories_are_shares_with_the_unseen_last() -> None:
    found = {**_numeric("output.class"), "edges": None, "reference": [30, 10, 0], "current": [1, 1, 2]}
    panel = panel_of(found, "psi")
    assert panel.labels == ["0", "1", "unseen"]
    assert panel.reference == [0.75, 0.25, 0.0]
    assert panel.current == [0.25, 0.25, 0.5]


def test_the_map_has_the_furthest_first_and_says_what_is_left_out() -> None:
    cells = [_cell("a", f"cam-{i:03}", i / 100) for i in range(100)]
    cells += [_cell("b", "cam-007", 9.0), _cell("b", "cam-008", None)]
    found = heat_map_of(cells)
    assert found.features == ["b", "a"]
    assert found.cohorts[:3] == ["cam-007", "cam-099", "cam-098"]
    assert (len(found.cohorts), found.left_out) == (MAX_COHORTS, 100 - MAX_COHORTS)
    assert found.values[0][:2] == [9.0, None]
    assert found.values[1][:2] == [0.07, 0.99]


def test_a_picture_is_of_the_newest_version_and_the_features_that_are_furthest() -> None:
    histograms = [_numeric(f"input.{i}", psi=i / 10, version=2) for i in range(20)] + [
        _numeric("old", psi=9.0)
    ]
    cells = [_cell("input.0", "lyon", 0.1, version=2), _cell("input.0", "lyon", 5.0, version=1)]
    picture = picture_of(histograms, cells, "psi")
    assert picture is not None
    assert picture.version == 2
    assert [panel.feature for panel in picture.panels][:2] == ["input.19", "input.18"]
    assert (len(picture.panels), picture.left_out) == (MAX_PANELS, 20 - MAX_PANELS)
    assert picture.heat_map.values == [[0.1]]


def test_what_is_drawn_is_what_was_worked_out() -> None:
    cells = [_cell("input.mean", "lyon", 0.1), _cell("input.mean", "oslo", None)]
    picture = picture_of([_numeric()], cells, "psi")
    assert picture is not None
    figure = drawn(picture, "digits", "psi")
    steps = [patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch)]
    panel = picture.panels[0]
    assert [list(step.get_data()[0]) for step in steps] == [panel.reference, panel.current]
    assert list(steps[0].get_data()[1]) == panel.edges
    image = next(image for axes in figure.axes for image in axes.images)
    shown = image.get_array()
    assert shown is not None
    assert shown[0, 0] == 0.1
    assert image.get_clim()[0] == 0.0


@pytest.mark.parametrize(("features", "cohorts"), [(1, 1), (16, 60)])
def test_a_png_of_a_sensible_size_is_written(tmp_path: Path, features: int, cohorts: int) -> None:
    names = [f"input.{i}" for i in range(features)]
    histograms = {"items": [_numeric(name) for name in names]}
    cells = [_cell(name, f"cam-{i}", 0.0) for name in names for i in range(cohorts)]
    file = tmp_path / "out.png"
    draw_drift(file, histograms, {"items": cells, "metric": "psi"}, title="digits")
    data = file.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width == 11 * DOTS_PER_INCH
    assert 300 < height < 3000
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("cells", [[], [_cell("input.mean", "lyon", None)]], ids=["nothing", "no value"])
def test_without_a_value_there_are_histograms_alone(tmp_path: Path, cells: list[dict[str, Any]]) -> None:
    draw_drift(tmp_path / "out.png", {"items": [_numeric()]}, {"items": cells, "metric": "psi"}, title="x")
    assert (tmp_path / "out.png").exists()


def test_names_that_look_like_formulas_are_names(tmp_path: Path) -> None:
    name = r"$\frac{$"
    matrix = {"items": [_cell(name, name, 0.1)], "metric": "psi"}
    draw_drift(tmp_path / "out.png", {"items": [_numeric(name)]}, matrix, title=name)
    assert (tmp_path / "out.png").exists()


def test_nothing_to_draw_and_no_matplotlib_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix: dict[str, Any] = {"items": [], "metric": "psi"}
    with pytest.raises(NotFound):
        draw_drift(tmp_path / "out.png", {"items": []}, matrix, title="digits")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InvalidConfiguration, match="plot"):
        draw_drift(tmp_path / "out.png", {"items": [_numeric()]}, matrix, title="digits")
    assert list(tmp_path.iterdir()) == []
