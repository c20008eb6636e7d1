"""What a run of the fleet benchmark found: records and answers checked in the hub's store, tables, aims."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks.aims import Aim
from benchmarks.fleet_crowd import Crowd, Told
from benchmarks.fleet_habits import Habits
from benchmarks.fleet_usage import Usage
from benchmarks.fleet_watch import Course
from benchmarks.fleet_windows import MODEL
from benchmarks.table import table
from fleet.protocol.heads import read_head
from hub.home import open_home

HUB_MS, COPIES = 20.0, 3.0


class Checked(NamedTuple):
    """What the hub's store has, against what devices told.

    Attributes:
        records: That devices told.
        lost: Of them not in the store.
        doubled: In the store more than once, or never told.
        predictions: In all windows that were told.
        miscounted: How many more or fewer the hub's totals have, by device and version.
    """

    records: int
    lost: int
    doubled: int
    predictions: int
    miscounted: int


class Wanted(NamedTuple):
    """What a run is to be.

    Attributes:
        devices: How many.
        model_bytes: Size of the model's file.
        plan: Text of the plan.
        habits: How devices behave.
        enrol: How they become members: ``api`` or ``store``.
        kill_hub: Whether the hub is killed in mid-rollout.
        seed: Fixes what befalls whom.
    """

    devices: int
    model_bytes: int
    plan: str
    habits: Habits
    enrol: str = "api"
    kill_hub: bool = False
    seed: int = 5


class Lived(NamedTuple):
    """What was seen while devices were connected.

    Attributes:
        crowd: The devices.
        told: What they told.
        connected_s: How long connecting took.
        held: Connections when the rollout ended.
        course: How it went.
    """

    crowd: Crowd
    told: Told
    connected_s: float
    held: int
    course: Course


class Outcome(NamedTuple):
    """What a run found.

    Attributes:
        wanted: What it was to be.
        enrolled_s: How long enrolling took.
        lived: What was seen while devices were connected.
        bundle_bytes: Bytes of blobs that a device lacks.
        hub: What hub processes used.
        broker: What brokers used.
        checked: Records and answers.
    """

    wanted: Wanted
    enrolled_s: float
    lived: Lived
    bundle_bytes: int
    hub: Usage
    broker: Usage
    checked: Checked


def checked(home: Path, told: Told) -> Checked:
    """Compare what a hub that has stopped keeps with what devices know that they told."""
    opened = open_home(home)
    stored: Counter[tuple[str, str, int]] = Counter()
    with closing(opened.store) as store:
        position = 0
        while rows := store.raw_records_after(position, limit=1000):
            position = rows[-1].position
            for row in rows:
                head = read_head(row.data)
                stored[row.device_id, head.stream, head.number] += 1
        counted = {(row.device_id, row.version): row.totals.predictions for row in store.totals(model=MODEL)}
    sent = {(*stream, number) for stream, last in told.records.items() for number in range(1, last + 1)}
    keys = counted.keys() | told.predictions.keys()
    return Checked(
        records=len(sent),
        lost=len(sent - stored.keys()),
        doubled=sum(stored.values()) - len(sent & stored.keys()),
        predictions=sum(told.predictions.values()),
        miscounted=sum(abs(counted.get(key, 0) - told.predictions.get(key, 0)) for key in keys),
    )


def shown(found: Outcome) -> str:
    """Return the tables and the aims."""
    devices, checked, lived, course = found.wanted.devices, found.checked, found.lived, found.lived.course
    fleet = lived.crowd.fleet
    final = sum(course.counts.get(state, 0) for state in ("SUCCEEDED", "ROLLED_BACK"))
    hub_ms = 1000 * found.hub.cpu_s / devices
    copies = course.published_bytes / found.bundle_bytes
    mib = 2.0**20
    rows = [
        ["connections held at the end", f"{lived.held:,}"],
        [f"enrolled a second ({found.wanted.enrol})", f"{devices / found.enrolled_s:,.0f}"],
        ["connected a second", f"{devices / lived.connected_s:,.0f}"],
        [f"seconds of the rollout, which ended {course.status}", f"{course.took_s:.1f}"],
        ["messages from devices", f"{fleet.traffic.sent:,}"],
        ["messages to devices", f"{fleet.traffic.received:,}"],
        ["CPU seconds of the hub", f"{found.hub.cpu_s:.1f}"],
        ["CPU seconds of the broker", f"{found.broker.cpu_s:.1f}"],
        ["peak MiB of the hub", f"{found.hub.peak_bytes / mib:.0f}"],
        ["peak MiB of the broker", f"{found.broker.peak_bytes / mib:.0f}"],
        ["MiB of blobs published by the hub", f"{course.published_bytes / mib:.1f}"],
        ["MiB that a copy for each device would be", f"{devices * found.bundle_bytes / mib:.1f}"],
        ["MiB that devices received, all in", f"{fleet.traffic.received_bytes / mib:.1f}"],
        ["µs of a signature's check by a device", _each_us(fleet.verifying_s, fleet.verified)],
        ["records told", f"{checked.records:,}"],
        ["records lost", f"{checked.lost:,}"],
        ["records doubled", f"{checked.doubled:,}"],
        ["predictions told", f"{checked.predictions:,}"],
        ["predictions miscounted", f"{checked.miscounted:,}"],
        *([f"devices {state}", f"{number:,}"] for state, number in sorted(course.counts.items())),
    ]
    stages = [
        [
            str(number),
            f"{stage.devices:,}",
            f"{stage.ordered_s:.1f}",
            f"{stage.devices / stage.ordered_s:,.0f}" if stage.ordered_s else "-",
            f"{stage.took_s:.1f}",
        ]
        for number, stage in enumerate(course.stages, start=1)
    ]
    aims = [
        Aim("fleet-connections-held", lived.held, ">=", devices),
        Aim("fleet-devices-final", final, ">=", devices),
        Aim("fleet-records-lost", checked.lost, "<=", 0),
        Aim("fleet-records-doubled", checked.doubled, "<=", 0),
        Aim("fleet-predictions-miscounted", checked.miscounted, "<=", 0),
        Aim("fleet-hub-cpu-ms-per-device", hub_ms, "<=", HUB_MS),
        Aim("fleet-copies-of-the-bundle-a-stage", copies / max(1, len(course.stages)), "<=", COPIES),
    ]
    killed = ", the hub killed in mid-rollout" if found.wanted.kill_hub else ""
    return "\n\n".join(
        [
            table(f"A rollout to {devices:,} connected devices{killed}", ["what", "measured"], rows),
            table("Stages", ["stage", "devices", "ordered s", "orders a second", "took s"], stages),
            "\n".join(map(str, aims)),
        ]
    )


def _each_us(total_s: float, number: int) -> str:
    return f"{1e6 * total_s / number:.0f}" if number else "-"
