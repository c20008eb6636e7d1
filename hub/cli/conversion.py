"""How a conversion's report is shown in a terminal: a table of numbers, and below it whole sentences.

The table is as wide as its numbers. Where that is wider than the terminal, each variant gets lines of its
own. A sentence that is true of several variants is said once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from rich import box
from rich.table import Table
from rich.text import Text

from converters.bundles.bundle import Bundle
from converters.judging.variant import VariantReport
from converters.page.words import drop_text, latency_text
from converters.report import Report
from fleet.protocol.errors import AccuracyTooLow
from hub.cli.output import console, has_width, natural_width

_DASH = "–"
_LEFT = ("variant", "verdict")
_LAYERS = 10
"""Layers that are shown; the report has all."""


def print_report(report: Report) -> None:
    """Print what became of each variant."""
    source = report.source
    evaluation = source.evaluation
    judged = ""
    if evaluation:
        samples = "1 sample" if evaluation.samples == 1 else f"{evaluation.samples} samples"
        judged = f", {evaluation.metric} {evaluation.value:.4f} on {samples}"
    _say(f"{source.name}: {source.framework}, {source.task}, {source.size_bytes:,} bytes in fp32{judged}")
    rows = [_row(each, judged=bool(evaluation)) for each in report.variants]
    table = _table(rows, evaluation.metric if evaluation else "")
    width = natural_width(table)
    if width <= console.width or not has_width():
        table.width = width
        console.print(table, crop=False)
    else:
        _print_apart(rows)
    for subject, text in _sentences(report):
        _say(f"{subject}: {text}")
    if report.layers:
        _say("Signal to noise of the answers, in dB, with one layer alone in int8, the worst first:")
    for layer in report.layers[:_LAYERS]:
        noise = "no noise" if layer.isolated_db is None else f"{layer.isolated_db:.1f}"
        _say(f"  {noise}  {layer.name} ({layer.operator})")


def print_advice(report: Report, *, searched: bool, measured: bool) -> None:
    """Print what to try next, or why an option had no effect.

    Args:
        report: What became of each variant.
        searched: Whether layers to keep in float were looked for.
        measured: Whether layers were to be measured.
    """
    lossy = [
        each for each in report.variants if each.precision == "int8" and each.code == AccuracyTooLow.code
    ]
    if lossy and not searched:
        _say("Try --keep-float auto: it leaves in float the few layers that int8 harms most.")
    if measured and not report.layers:
        _say("No layer was measured: --sensitivity takes --calibrate, and an int8 target that can be built.")


def print_written(out: Path, names: tuple[str, ...], html: Path | None, bundle: Bundle | None) -> None:
    """Print what was written where.

    Args:
        out: The output folder.
        names: What is in it; empty if it was not written.
        html: The page, if there is one.
        bundle: What was packed; None without samples.
    """
    if names:
        _say(f"Wrote {', '.join(names)} to {out}.")
    if bundle is not None:
        manifest = bundle.manifest
        _say(f"The bundle is {manifest.model} version {manifest.version}, SHA-256 {bundle.sha256}.")
        _say(f"To bring it to a hub: muster model register {manifest.model} {quote(str(out))}")
    elif names:
        _say("There is no bundle: its self-test and drift profile need samples. Give them with --calibrate.")
    if html is not None:
        _say(f"Wrote the page {html}.")


def _say(text: str) -> None:
    """Print a line: wrapped for a terminal, whole for a file or program."""
    console.print(Text(text), soft_wrap=not console.is_terminal)


def _row(variant: VariantReport, *, judged: bool) -> dict[str, str]:
    metric = {
        "metric": _DASH if variant.evaluation is None else f"{variant.evaluation.value:.4f}",
        "drop": _DASH if variant.drop is None else drop_text(variant.drop),
    }
    difference = {"difference": _DASH if variant.parity is None else f"{variant.parity:.1e}"}
    return {
        "variant": variant.name,
        "bytes": _DASH if variant.size_bytes is None else f"{variant.size_bytes:,}",
        "ratio": _DASH if variant.ratio is None else f"{variant.ratio:.2f}",
        **(metric if judged else difference),
        "p50 here": ", ".join(f"{latency_text(us)} {name}" for name, us in variant.latency_us.items())
        or _DASH,
        "verdict": _verdict(variant),
    }


def _verdict(variant: VariantReport) -> str:
    """Say in two words what became of it; the sentences below the table say more."""
    if variant.packed:
        return "packed"
    if variant.size_bytes is None:
        return "not built"
    return "not run" if variant.parity is None else "refused"


def _table(rows: list[dict[str, str]], metric: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in rows[0]:
        heading = metric if name == "metric" else name
        table.add_column(heading, justify="left" if name in _LEFT else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row.values())
    return table


def _print_apart(rows: list[dict[str, str]]) -> None:
    for row in rows:
        _say("")
        for name, text in row.items():
            _say(text if name == "variant" else f"  {name} {text}")
    _say("")


def _sentences(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what the table has no room for, each once, and whom it is about."""
    for text in report.source.cautions:
        yield report.source.name, text
    about: dict[tuple[str, str], list[str]] = {}
    for variant in report.variants:
        told = [("", text) for text in variant.cautions]
        if not variant.packed:
            told.insert(0, (_verdict(variant), variant.reason))
        if variant.kept_float:
            told.append(("", f"These nodes stayed float: {', '.join(variant.kept_float)}."))
        for each in told:
            about.setdefault(each, []).append(variant.name)
    for (verdict, text), names in about.items():
        became = f" {'was' if len(names) == 1 else 'were'} {verdict}" if verdict else ""
        yield f"{', '.join(names)}{became}", text
