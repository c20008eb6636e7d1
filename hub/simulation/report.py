"""What came of simulated rollouts, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table

from fleet.sentences import counted, duration
from hub.simulation.outcome import Judgement, Outcome, Report

_MOST_LINES = 40
"""Most decisions that are shown; JSON has all."""


def drawn(report: Report) -> RenderableType:
    """Return the report on one run in full, on many as a table with their rates."""
    if len(report.runs) == 1:
        return _one(report)
    return Group(_title(report), _many(report), *_rates(report))


def _title(report: Report) -> str:
    truth = "harmful" if report.ought_to_stop else "harmless"
    about = f": {report.about}" if report.about else ""
    return f"scenario {report.scenario} ({truth}){about}"


def _one(report: Report) -> RenderableType:
    run = report.runs[0]
    return Group(
        _title(report), _stages(run), *_facts(run, is_harmful=report.ought_to_stop), *_decisions(run)
    )


def _stages(run: Outcome) -> Table:
    table = Table(
        title=f"seed {run.seed}: {run.status.value} after {duration(run.duration_s)}, {run.judgement.value}",
        title_justify="left",
    )
    for heading in ("stage", "devices", "succeeded", "failed", "took", "expected at least"):
        table.add_column(heading)
    for number, stage in enumerate(run.stages, start=1):
        table.add_row(
            f"{number} {stage.name}".rstrip() + (" (promoted)" if stage.promoted else ""),
            f"{stage.devices:,}",
            f"{stage.succeeded:,}",
            f"{stage.failed:,}",
            duration(stage.took_s),
            duration(stage.expected_s),
        )
    return table


def _facts(run: Outcome, *, is_harmful: bool) -> Iterator[str]:
    states = ", ".join(f"{number:,} {state}" for state, number in run.counts.items())
    yield f"  devices: {run.devices:,}, of these {states}"
    stop = "" if run.stopped_s is None else f"; {run.got_it_before_stop:,} before the stop"
    yield f"  ran the version: {run.got_it:,}{stop}"
    stop = "" if run.stopped_s is None else f"; {run.harmed_before_stop:,} before the stop"
    yield f"  harmed: {run.harmed:,}{stop}"
    if is_harmful and not run.ought_to_stop:
        yield "  The version harms no device that the plan's target means: nothing had to be stopped."
    if run.stopped_s is not None:
        yield f"  stopped after: {duration(run.stopped_s)}"
    yield f"  downloaded: {decimal(run.received_bytes)}"
    orders, reports = counted(run.orders, "order"), counted(run.reports, "report")
    yield f"  messages: {orders}, {reports}, {counted(run.windows, 'telemetry window')}"
    if run.not_back:
        yield f"  not back on what they ran before: {run.not_back:,}"
    if run.unaccounted:
        yield f"  WITHOUT AN OUTCOME: {run.unaccounted:,}"
    if run.reason:
        yield f"  why: {run.reason}"


def _decisions(run: Outcome) -> Iterator[str]:
    left_out = max(0, len(run.history) - _MOST_LINES)
    for entry in run.history[: _MOST_LINES // 2]:
        yield f"  {duration(entry.at_s):>9}  {entry.text}"
    if left_out:
        yield f"             ({left_out:,} more)"
    for entry in run.history[_MOST_LINES // 2 + left_out :]:
        yield f"  {duration(entry.at_s):>9}  {entry.text}"
    for text in run.refused:
        yield f"  refused: {text}"


def _many(report: Report) -> Table:
    table = Table()
    for heading in ("seed", "ended", "judgement", "after", "ran it", "harmed", "before the stop"):
        table.add_column(heading)
    for run in report.runs:
        table.add_row(
            str(run.seed),
            run.status.value,
            run.judgement.value,
            duration(run.duration_s),
            f"{run.got_it:,}",
            f"{run.harmed:,}",
            "–" if run.stopped_s is None else f"{run.harmed_before_stop:,}",
        )
    return table


def _rates(report: Report) -> Iterator[str]:
    count = len(report.runs)
    for judgement in Judgement:
        number = report.judgements.get(judgement.value, 0)
        if number:
            yield f"  {judgement.value}: {number:,} of {count:,} ({number / count:.1%})"
