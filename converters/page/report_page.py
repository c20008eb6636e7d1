"""The page: a report of a conversion, section by section.

It is one file without scripts that asks for nothing else; a content security policy inside says so to the
browser as well. The same report gives the same page.
"""

from __future__ import annotations

from collections.abc import Iterator

from converters.page.confusion import confusion
from converters.page.layers import layers
from converters.page.markup import Child, Markup, element, joined
from converters.page.scatter import Point, marker, scatter
from converters.page.style import STYLE
from converters.page.tables import DASH, facts, requirements_table, table, variant_notes, variants_table
from converters.page.words import size_text
from converters.report import Report

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def report_page(report: Report) -> str:
    """Return the page as HTML text.

    Args:
        report: What `converters.convert.convert` found out.
    """
    title = f"Conversion of {report.source.name}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    body = element("body", element("main", _header(report, title), _sections(report)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _header(report: Report, title: str) -> Markup:
    packed = sum(variant.packed for variant in report.variants)
    return element(
        "header",
        element("h1", title),
        element("p", f"{packed} of {len(report.variants)} variants were packed.", class_="faint"),
    )


def _sections(report: Report) -> Iterator[Markup]:
    yield _section("Source", _source(report))
    yield _section("Variants", _about_numbers(report), variants_table(report), variant_notes(report))
    if plot := _size_against_metric(report):
        yield _section("Size against accuracy", plot)
    if report.layers:
        yield _section("What each layer loses in int8", layers(report.layers, report.variants))
    if matrices := confusion(report):
        yield _section("Confusion before and after", matrices)
    yield _section("What a device must have", requirements_table(report))
    yield _section("Libraries", _libraries(report))


def _section(heading: str, *contents: Child) -> Markup:
    return element("section", element("h2", heading), *contents)


def _source(report: Report) -> Markup:
    source = report.source
    evaluation = source.evaluation
    return facts(
        [
            ("trained with or stored as", source.framework),
            ("task", source.task),
            (
                evaluation.metric if evaluation else "metric",
                f"{evaluation.value:.4f}" if evaluation else DASH,
            ),
            ("size in fp32", f"{source.size_bytes:,} B"),
            ("samples to calibrate with", f"{report.calibration_samples:,}"),
            ("samples to judge by", f"{report.held_out_samples:,}"),
            ("greatest drop allowed", f"{report.gate.maximum_drop:g}"),
            ("least metric demanded", "none" if report.gate.minimum is None else f"{report.gate.minimum:g}"),
            ("ranges of activations", report.method),
            ("seed", str(report.seed)),
        ],
        [
            ("SHA-256 of the source", source.sha256),
            ("SHA-256 of the dataset", report.dataset_sha256),
            ("SHA-256 of the held-out dataset", report.held_out_sha256),
        ],
    )


def _about_numbers(report: Report) -> Markup:
    judged = (
        f"Metric and drop are taken on {report.held_out_samples:,} held-out samples. "
        if report.held_out_samples
        else "Without a dataset, answers were compared on made-up samples, which say nothing about the task. "
    )
    return element(
        "p",
        f"{judged}The ratio is to the fp32 model's size, the difference is the greatest to the source's"
        " answers, and p50 is the median time of one answer on the machine that converted, by runtime.",
        class_="faint",
    )


def _size_against_metric(report: Report) -> Markup | None:
    points = [
        Point(each.name, each.size_bytes, each.evaluation.value, each.packed)
        for each in report.variants
        if each.size_bytes and each.evaluation is not None
    ]
    if not points or report.source.evaluation is None:
        return None
    metric = report.source.evaluation.metric
    rows = (
        [p.name, size_text(p.size_bytes), f"{p.value:.4f}", "packed" if p.packed else "refused"]
        for p in points
    )
    as_table = table(["variant", "size", metric, "verdict"], rows, numbers=(1, 2))
    return element(
        "figure",
        scatter(points, metric=metric, source=report.source.evaluation.value),
        element("figcaption", _legend(points), class_="legend"),
        element("details", element("summary", "as a table"), as_table),
    )


def _legend(points: list[Point]) -> Markup:
    families = dict.fromkeys(point.family for point in points)
    entries = [(family, Point(family, 1, 0.0, packed=True)) for family in families]
    if not all(point.packed for point in points):
        entries.append(("hollow: refused", Point(next(iter(families)), 1, 0.0, packed=False)))
    return joined(
        element(
            "span",
            element("svg", marker(point, 9.0, 9.0), viewBox="0 0 18 18", aria_hidden="true"),
            text,
        )
        for text, point in entries
    )


def _libraries(report: Report) -> Markup:
    return facts(sorted(report.libraries.items()))
