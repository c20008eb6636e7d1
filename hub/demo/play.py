"""Playing the demo: shows each step as it happens, and the closing table."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from fleet.protocol.errors import MusterError
from hub.demo.images import load_digits
from hub.demo.stage import MODEL, Stage, StepFailed
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
    keep_logs = True
    try:
        await _play(console, stage, stay=stay)
        keep_logs = False
    except asyncio.CancelledError:
        keep_logs = False
        console.print("[yellow]Stopped.[/yellow]")
        return False
    except StepFailed as error:
        console.print(f"[red]{error}[/red]")
        console.print(f"[red]The demo failed. Its logs are in {folder}.[/red]")
        return False
    finally:
        await stage.close()
        if not keep_logs:
            shutil.rmtree(folder, ignore_errors=True)
    return True


async def _play(console: Console, stage: Stage, *, stay: bool) -> None:
    story = Story(stage, lambda text: console.print(f"    {text}"))
    told_to_stop = asyncio.Event()
    steps = asyncio.create_task(_steps(console, stage, story))

    def stop() -> None:
        told_to_stop.set()
        steps.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    console.print(await _closing_tables(stage, story, await steps))
    if stay:
        await _stay(console, stage, told_to_stop)


class _Step(NamedTuple):
    """A step that came true."""

    title: str
    duration_s: float
    published_bytes: int


async def _steps(console: Console, stage: Stage, story: Story) -> list[_Step]:
    done: list[_Step] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        published_bytes = 0
        for number, (title, step) in enumerate(story.steps, start=1):
            console.print(f"[bold]{number}. {title}[/bold]")
            task = progress.add_task(f"step {number} of {len(story.steps)}")
            started_s = time.monotonic()
            try:
                await step()
            except (StepFailed, MusterError) as error:
                raise StepFailed(f"Step {number} ({title}) failed: {error}") from error
            duration_s = time.monotonic() - started_s
            before_bytes, published_bytes = published_bytes, await _published_bytes(stage)
            done.append(_Step(title, duration_s, published_bytes - before_bytes))
            progress.remove_task(task)
            console.print(f"[green]    true after {duration_s:.1f} s[/green]")
    return done


async def _closing_tables(stage: Stage, story: Story, steps: list[_Step]) -> Group:
    """Return what the devices reported, and what each step took."""
    totals = (await stage.ask("/fleet/totals", model=MODEL))["items"]
    runs = {row["device_id"]: row["models"] for row in stage.client.pages("/devices")}
    versions = sorted(story.findings.accuracy)
    devices = Table(
        title="What the devices reported; accuracy against the field's labels", title_justify="left"
    )
    for heading in ("device", "runs", "answers", *(f"v{version}" for version in versions), "p50 µs", "drift"):
        devices.add_column(heading, justify="left" if heading in {"device", "drift"} else "right")
    for device_id in stage.device_ids:
        own = {row["version"]: row for row in totals if row["device_id"] == device_id}
        devices.add_row(
            device_id,
            ", ".join(f"v{model['version']}" for model in runs[device_id]),
            f"{sum(row['predictions'] for row in own.values()):,}",
            *(_share(own.get(version)) for version in versions),
            f"{max(row['latency_p50_us'] or 0.0 for row in own.values()):,.0f}",
            "alarm" if device_id in story.findings.alarmed else "–",
        )
    devices.add_section()
    held_out = [min(story.findings.accuracy[version].values()) for version in versions]
    devices.add_row("held out, on the hub", "", "", *(f"{accuracy:.1%}" for accuracy in held_out), "", "")
    took = Table(title="What the steps took", title_justify="left")
    took.add_column("step")
    took.add_column("seconds", justify="right")
    took.add_column("bytes of models sent", justify="right")
    for step in steps:
        took.add_row(step.title, f"{step.duration_s:.1f}", f"{step.published_bytes:,}")
    took.add_section()
    total_s, total_bytes = sum(s.duration_s for s in steps), sum(s.published_bytes for s in steps)
    took.add_row(f"all, for {len(stage.device_ids)} devices", f"{total_s:.1f}", f"{total_bytes:,}")
    return Group(devices, took)


async def _stay(console: Console, stage: Stage, told_to_stop: asyncio.Event) -> None:
    assert stage.address is not None
    console.print(f"The hub is at {stage.address.url}, its documentation at {stage.address.url}/api/v1/docs.")
    console.print("Look around from another terminal, in this folder:")
    console.out("    . .venv/bin/activate")
    console.out(f"    export MUSTER_URL={stage.address.url} MUSTER_TOKEN={stage.token}")
    console.out("    muster fleet health; muster rollout list; muster device show camera-01")
    console.print(f"The state of hub and agents is in {stage.folder}. Ctrl-C stops everything.")
    while not told_to_stop.is_set():
        stage.check()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told_to_stop.wait(), 1.0)


async def _published_bytes(stage: Stage) -> int:
    text = await asyncio.to_thread(stage.metrics)
    line = next(line for line in text.splitlines() if line.startswith("muster_blob_published_bytes_total "))
    return int(float(line.split()[1]))


def _share(row: dict[str, Any] | None) -> str:
    if row is None or row["accuracy"] is None:
        return "–"
    return f"{row['accuracy']:.1%}"
