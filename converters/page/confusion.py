"""Confusion before and after: the source's matrix, and that of each variant which answers in another way.

Up to `MAX_MAPPED_CLASSES` classes are drawn as heat maps with a table behind each; of more, the pairs that
are confused most are listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from converters.page.heat_map import changed, heat_map
from converters.page.markup import Child, Markup, element, joined
from converters.page.tables import table
from converters.report import Confusion, Report

MAX_MAPPED_CLASSES = 20
MAX_PAIRS = 20


def confusion(report: Report) -> Markup | None:
    """Return the section's contents; None where nothing was classified against labels.

    Args:
        report: Its first confusion is the source's.
    """
    if not report.confusion:
        return None
    before, *after = report.confusion
    names = report.classes or tuple(str(number) for number in range(len(before.counts)))
    moved = [each for each in after if each.counts != before.counts]
    same = [each.variant for each in after if each.counts == before.counts]
    note = f"The same matrix as the source's: {', '.join(same)}." if same else None
    drawn = (
        element("div", _maps(before, moved, names), class_="maps")
        if len(names) <= MAX_MAPPED_CLASSES
        else _pairs(report.confusion, names)
    )
    return joined(drawn, element("p", note, class_="after") if note else None)


def _maps(before: Confusion, moved: Sequence[Confusion], names: Sequence[str]) -> Iterator[Markup]:
    yield _map(
        before,
        names,
        "Before: the source",
        "Counts of samples.",
        heat_map(before.counts, names, title="Source"),
    )
    for each in moved:
        caption = (
            f"At least {changed(each.counts, before.counts)} of {sum(map(sum, each.counts))} answers changed."
        )
        drawn = heat_map(each.counts, names, title=each.variant, before=before.counts)
        yield _map(each, names, f"After: {each.variant}", caption, drawn)


def _map(matrix: Confusion, names: Sequence[str], heading: str, caption: str, drawn: Markup) -> Markup:
    rows: Iterator[list[Child]] = ([name, *row] for name, row in zip(names, matrix.counts, strict=True))
    as_table = table(["true \\ answered", *names], rows, numbers=range(1, len(names) + 1))
    return element(
        "figure",
        element("h3", heading),
        drawn,
        element("figcaption", caption),
        element("details", element("summary", "as a table"), as_table),
    )


def _pairs(matrices: Sequence[Confusion], names: Sequence[str]) -> Markup:
    worst: dict[tuple[int, int], int] = {}
    for matrix in matrices:
        for row, counts in enumerate(matrix.counts):
            for column, count in enumerate(counts):
                if row != column and count:
                    worst[row, column] = max(worst.get((row, column), 0), count)
    chosen = sorted(worst, key=lambda pair: (-worst[pair], pair))[:MAX_PAIRS]
    if not chosen:
        return element("p", "No class was taken for another.")
    rows: Iterator[list[Child]] = (
        [f"{names[a]} → {names[b]}", *(each.counts[a][b] for each in matrices)] for a, b in chosen
    )
    headings = ["true → answered", *(each.variant for each in matrices)]
    intro = f"Of {len(names)} classes, the {len(chosen)} pairs that are confused most:"
    return joined(element("p", intro), table(headings, rows, numbers=range(1, len(headings))))
