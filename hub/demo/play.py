"""Playing the demo: shows each step as it happens, and the closing table."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from fleet.protocol.errors import MusterError
from hub.demo.images import load_digits
from hub.demo.stage import MODEL, Stage
from hub.demo.story import Story


async def play(console: Console, *, device_count: int, seed: int, stay: bool) -> bool:
    """Play the demo.

    Args:
        console: Where it is shown.
        device_count: How many cameras there are.
        seed: Fixes every random choice.
        stay: Leave everything running until Ctrl-C.

    Returns:
        Whether every step came true.
    """
    folder = Path(tempfile.mkdtemp(prefix="muster-demo-"))  # short, because socket paths are
    stage = Stage(folder, load_digits(seed), device_count, seed)
    story = Story(stage, lambda text: console.print(f"    {text}"))
    loop = asyncio.get_running_loop()
    told_to_stop = asyncio.Event()
    playing = loop.create_task(_steps(console, story))

    def stop() -> None:
        told_to_stop.set()
        playing.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        timings = await playing
        console.print(await _closing_table(stage, story, timings))
        if stay:
            await _stay(console, stage, told_to_stop)
    except asyncio.CancelledError:
        console.print("[yellow]Stopped.[/yellow]")
        return False
    except MusterError as error:
        console.print(f"[red]    {error}[/red]")
        console.print(f"[red]The demo failed. Its logs are in {folder}.[/red]")
        return False
    else:
        shutil.rmtree(folder, ignore_errors=True)
        return True
    finally:
        await stage.close()


async def _steps(console: Console, story: Story) -> dict[str, float]:
    timings: dict[str, float] = {}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for number, (title, step) in enumerate(story.steps, start=1):
            console.print(f"[bold]{number}. {title}[/bold]")
            task = progress.add_task(f"step {number} of {len(story.steps)}")
            started_s = time.monotonic()
            await step()
            timings[title] = time.monotonic() - started_s
            progress.remove_task(task)
            console.print(f"[green]    true after {timings[title]:.1f} s[/green]")
    return timings


async def _closing_table(stage: Stage, story: Story, timings: dict[str, float]) -> Table:
    totals = (await stage.ask("/fleet/totals", model=MODEL))["items"]
    devices = {row["device_id"]: row for row in stage.client.pages("/devices")}
    versions = sorted(story.findings.accuracy)
    table = Table(title="What the devices reported", title_justify="left", caption_justify="left")
    for heading in ("device", "runs", "predictions", *(f"accuracy v{v}" for v in versions), "p50", "drift"):
        table.add_column(heading)
    for device_id in stage.device_ids:
        own = {row["version"]: row for row in totals if row["device_id"] == device_id}
        latency_us = max((row["latency_p50_us"] or 0.0 for row in own.values()), default=0.0)
        table.add_row(
            device_id,
            ", ".join(f"version {model['version']}" for model in devices[device_id]["models"]),
            f"{sum(row['predictions'] for row in own.values()):,}",
            *(_share(own.get(version)) for version in versions),
            f"{latency_us:,.0f} µs",
            "alarm" if device_id in story.findings.alarmed else "–",
        )
    held_out = [min(story.findings.accuracy[version].values()) for version in versions]
    table.add_section()
    table.add_row("held out, on the hub", "", "", *(f"{accuracy:.1%}" for accuracy in held_out), "", "")
    published = await _published_bytes(stage)
    table.caption = (
        f"{published:,} bytes of models published for {len(stage.device_ids)} devices; "
        f"{sum(timings.values()):.0f} s in all. Accuracy of version 2 includes the dirty lenses."
    )
    return table


async def _stay(console: Console, stage: Stage, told_to_stop: asyncio.Event) -> None:
    assert stage.address is not None
    console.print(f"The hub is at {stage.address.url}, its documentation at {stage.address.url}/api/v1/docs.")
    console.print(f"The state of hub and agents is in {stage.folder}. Ctrl-C stops everything.")
    await told_to_stop.wait()


async def _published_bytes(stage: Stage) -> int:
    text = await asyncio.to_thread(stage.metrics)
    line = next(line for line in text.splitlines() if line.startswith("muster_blob_bytes_published_total "))
    return int(float(line.split()[1]))


def _share(row: dict[str, Any] | None) -> str:
    if row is None or row["accuracy"] is None:
        return "–"
    return f"{row['accuracy']:.1%}"
