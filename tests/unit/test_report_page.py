"""The page of a report: complete, self-contained, and safe whatever things are called."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
import pytest

from converters.convert import Conversion
from converters.page.axes import linear_axis, log_axis
from converters.page.heat_map import changed
from converters.page.markup import Markup, element, joined
from converters.page.report_page import report_page
from converters.page.scatter import Point, scatter
from converters.page.words import drop_text, latency_text, size_text
from converters.report import Report
from tests.support.html import attributes_of, elements_of, texts_of
from tests.support.reports import (
    HOSTILE,
    hostile_conversion,
    many_classes_conversion,
    refused_conversion,
    sound_conversion,
    unsampled_conversion,
)


def test_text_and_attributes_are_escaped_and_markup_is_not() -> None:
    assert element("td", "<b>", 3, None, class_='"x"') == '<td class="&quot;x&quot;">&lt;b&gt;3</td>'
    assert element("p", element("b", "&")) == "<p><b>&amp;</b></p>"
    assert element("line", x1=1.0, stroke_width=0.755) == '<line x1="1" stroke-width="0.76"/>'
    assert element("div", hidden=True, title=None, id=False) == "<div hidden></div>"
    assert isinstance(joined(["<", [Markup("<br>")]]), Markup)
    assert joined(["<", [Markup("<br>")]]) == "&lt;<br>"


def test_axes_hold_their_values_and_mark_round_ones() -> None:
    up = linear_axis([0.9222, 0.9755], 300.0, 20.0)
    assert 20.0 < up.place(0.9755) < up.place(0.9222) < 300.0
    assert all(tick * 1000 == pytest.approx(round(tick * 1000)) for tick in up.ticks)
    assert 3 <= len(up.ticks) <= 8
    alike = linear_axis([1.0, 1.0], 0.0, 100.0)
    assert alike.place(1.0) == pytest.approx(50.0)
    across = log_axis([12_000, 120_000], 0.0, 100.0)
    assert across.ticks == pytest.approx((10_000, 20_000, 50_000, 100_000))
    assert log_axis([9_344, 11_475], 0.0, 100.0).ticks == pytest.approx((7_000, 8_000, 9_000, 10_000))
    middle = across.place(12_000 * 10**0.5)
    assert middle == pytest.approx((across.place(12_000) + across.place(120_000)) / 2)


def test_labels_of_points_in_one_place_do_not_cover_each_other() -> None:
    points = [Point(f"onnx-variant{number}", 1000, 0.9, packed=True) for number in range(6)]
    drawn = scatter(points, metric="accuracy", source=0.9)
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="label onnx">', drawn)
    places = [(float(x), float(y)) for x, y in found]
    assert len(set(places)) == 6
    for number, (x, y) in enumerate(places):
        assert all(abs(y - v) >= 15 or abs(x - u) >= 80 for u, v in places[:number])


def test_numbers_are_written_for_people() -> None:
    assert [size_text(n) for n in (999, 1500, 2_000_000, 3.2e9)] == ["999 B", "1.5 kB", "2 MB", "3.2 GB"]
    assert [latency_text(n) for n in (5.25, 1500, 2e6)] == ["5.25 µs", "1.5 ms", "2 s"]
    assert [drop_text(n) for n in (0.0123, -0.0022, -0.00001)] == ["0.0123", "−0.0022", "0.0000"]


def test_moved_samples_are_counted_once() -> None:
    assert changed([[4, 1], [0, 5]], [[5, 0], [1, 4]]) == 2


@pytest.mark.parametrize(
    "convert",
    [sound_conversion, refused_conversion, hostile_conversion, many_classes_conversion, unsampled_conversion],
)
def test_every_page_is_complete_and_needs_nothing_else(convert: Callable[[], Conversion]) -> None:
    found = convert()
    page = report_page(found.report)
    elements = elements_of(page)
    assert {"script", "img", "link", "iframe", "object", "base", "form"}.isdisjoint(elements)
    names = {name for name, _ in attributes_of(page)}
    assert {"src", "href", "srcset"}.isdisjoint(names)
    assert not any(name.startswith("on") for name in names)
    assert "url(" not in page
    assert "@import" not in page
    texts = " ".join(texts_of(page))
    for variant in found.report.variants:
        assert variant.name in texts
        assert variant.reason in texts
    for library, version in found.report.libraries.items():
        assert library in texts
        assert version in texts


def test_every_plot_can_be_read_aloud() -> None:
    page = report_page(hostile_conversion().report)
    plots = re.findall(r'<svg viewBox="[^"]*"[^>]* role="img"[^>]*>(.{0,40})', page)
    assert len(plots) == 4  # size against accuracy, layers, confusion before and after
    assert all(start.startswith("<title>") for start in plots)
    assert page.count("<desc>") == len(plots)
    assert page.count("<details>") == len(plots)


def test_hostile_names_stay_text() -> None:
    page = report_page(hostile_conversion().report)
    assert HOSTILE in " ".join(texts_of(page))
    assert {"script", "img", "b"}.isdisjoint(elements_of(page))


def test_a_refused_variant_is_hollow_and_its_changes_are_framed() -> None:
    page = report_page(refused_conversion().report)
    assert 'class="marker onnx refused"' in page
    assert 'class="cell-frame changed"' in page
    assert "accuracy falls by" in page


def test_of_many_classes_the_most_confused_pairs_are_listed() -> None:
    report = many_classes_conversion().report
    page = report_page(report)
    assert 'class="plot heat-map"' not in page
    counts = report.confusion[0].counts
    most, true, answered = max((counts[a][b], -a, -b) for a in range(30) for b in range(30) if a != b)
    assert most >= 2
    assert f"{-true} → {-answered}" in page


def test_without_samples_there_is_no_plot_and_the_page_says_what_was_compared() -> None:
    page = report_page(unsampled_conversion().report)
    assert "<svg" not in page
    assert "made-up samples" in page


def test_a_stored_report_gives_the_same_page() -> None:
    report = refused_conversion().report
    stored = msgspec.json.decode(msgspec.json.encode(report), type=Report)
    assert report_page(stored) == report_page(report)
