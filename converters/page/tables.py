"""Tables of the page, and the lists of sentences below them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from converters.judging.variant import VariantReport
from converters.page.markup import Child, Markup, element
from converters.page.words import drop_text, latency_text, size_text
from converters.report import Report

DASH = "–"


def table(headings: Sequence[str], rows: Iterable[Sequence[Child]], *, numbers: Iterable[int] = ()) -> Markup:
    """Return a table whose first column names the rows.

    Args:
        headings: Of the columns.
        rows: The cells of each.
        numbers: Indices of the columns that hold numbers.
    """
    aligned = set(numbers)

    def style(column: int) -> str | None:
        return "number" if column in aligned else None

    head = (
        element("th", heading, scope="col", class_=style(column)) for column, heading in enumerate(headings)
    )
    body = (
        element(
            "tr",
            element("th", row[0], scope="row"),
            (element("td", cell, class_=style(column)) for column, cell in enumerate(row[1:], start=1)),
        )
        for row in rows
    )
    whole = element("table", element("thead", element("tr", head)), element("tbody", body))
    return element("div", whole, class_="scroll", tabindex=0)


def facts(pairs: Iterable[tuple[str, Child]], digests: Iterable[tuple[str, str]] = ()) -> Markup:
    """Return a list of terms and what they are, and below it digests with a line each."""
    return element(
        "dl",
        (element("div", element("dt", name), element("dd", text)) for name, text in pairs),
        (
            element("div", element("dt", name), element("dd", element("code", digest or DASH)), class_="wide")
            for name, digest in digests
        ),
    )


def variants_table(report: Report) -> Markup:
    """Return what became of each variant, in numbers."""
    metric = report.source.evaluation.metric if report.source.evaluation else None
    headings = [
        "variant",
        "size",
        "ratio",
        "difference",
        *([metric, "drop"] if metric else []),
        "p50 here",
        "verdict",
    ]
    return table(
        headings,
        (_variant_row(each, judged=bool(metric)) for each in report.variants),
        numbers=range(1, len(headings) - 1),
    )


def variant_notes(report: Report) -> Markup | None:
    """Return why variants were refused and what to know of the others, in sentences."""
    notes = [
        *(_note("caution", "caution", report.source.name, text) for text in report.source.cautions),
        *(_note("refused", "refused", each.name, each.reason) for each in report.variants if not each.packed),
        *(_note("caution", "caution", each.name, text) for each in report.variants for text in each.cautions),
        *(
            _note("caution", "mixed", each.name, f"In float: {', '.join(each.kept_float)}.")
            for each in report.variants
            if each.kept_float
        ),
    ]
    return element("ul", notes, class_="notes") if notes else None


def requirements_table(report: Report) -> Markup:
    """Return what a device must have for each variant."""
    headings = ["variant", "runtimes", "architectures", "peak memory", "self-test tolerance", "operators"]
    rows = [
        [
            each.name,
            " or ".join(map(str, each.requirement.runtimes)),
            ", ".join(each.requirement.architectures) or "all",
            size_text(each.requirement.peak_memory_bytes),
            DASH if each.golden_tolerance is None else f"{each.golden_tolerance:.2g}",
            ", ".join(each.requirement.operators),
        ]
        for each in report.variants
        if each.requirement is not None
    ]
    return table(headings, rows, numbers=(3, 4))


def _variant_row(variant: VariantReport, *, judged: bool) -> list[Child]:
    evaluation = variant.evaluation
    metric = [
        DASH if evaluation is None else f"{evaluation.value:.4f}",
        DASH if variant.drop is None else drop_text(variant.drop),
    ]
    return [
        variant.name,
        DASH if variant.size_bytes is None else f"{variant.size_bytes:,} B",
        DASH if variant.ratio is None else f"{variant.ratio:.2f}",
        DASH if variant.parity is None else f"{variant.parity:.1e}",
        *(metric if judged else []),
        ", ".join(f"{latency_text(us)} {name}" for name, us in variant.latency_us.items()) or DASH,
        _badge("packed" if variant.packed else "refused", "packed" if variant.packed else "refused"),
    ]


def _note(style: str, word: str, name: str, text: str) -> Markup:
    return element("li", _badge(style, word), " ", element("strong", name), " ", text)


def _badge(style: str, word: str) -> Markup:
    return element("span", word, class_=f"verdict {style}")
