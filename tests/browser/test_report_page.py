"""The report's page in a real browser: it is drawn, it runs nothing, and it asks the network for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.page.report_page import report_page
from tests.support.browser import screenshot, visit
from tests.support.html import elements_of
from tests.support.reports import hostile_conversion


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a conversion whose classes have hostile names."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report_page(hostile_conversion().report))
    return path


def test_the_page_is_drawn_and_asks_for_nothing(page: Path, tmp_path: Path) -> None:
    seen = visit(page, tmp_path)
    elements = elements_of(seen.dom)
    assert elements.count("svg") >= 4  # size against accuracy, layers, confusion before and after
    assert elements.count("table") >= 4
    assert {"script", "img", "iframe", "link"}.isdisjoint(elements)
    assert seen.console == []
    assert seen.requests == set()


def test_a_page_that_did_would_be_caught(tmp_path: Path) -> None:
    page = tmp_path / "other.html"
    page.write_text('<img src="http://elsewhere.invalid/x.png"><script>undefined_name()</script>')
    seen = visit(page, tmp_path / "browser")
    assert seen.requests == {"http://elsewhere.invalid/x.png"}
    assert len(seen.console) == 1


def test_light_and_dark_are_drawn_in_colours_of_their_own(page: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.html"
    empty.write_text("<!doctype html><title>empty</title>")
    pictures = [
        screenshot(path, tmp_path / str(number), width=900, height=1200, dark=dark)
        for number, (path, dark) in enumerate([(page, False), (page, True), (empty, False)])
    ]
    assert pictures[0] != pictures[1]
    assert min(map(len, pictures[:2])) > 10 * len(pictures[2])  # a picture of nothing packs well
