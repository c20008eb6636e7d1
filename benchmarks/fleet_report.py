"""What a run of the fleet benchmark found: records and answers checked in the hub's store, tables, aims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks.aims import Aim
from benchmarks.fleet_crowd import Told
from benchmarks.fleet_usage import Usage
from benchmarks.fleet_watch import Stage
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


class Outcome(NamedTuple):
    """What a run found.

    Attributes:
        devices: How many there were.
        enrolled_by: How they became members, ``api`` or ``store``.
        killed: Whether the hub was killed in mid-rollout.
        enrolled_s: How long enrolling took.
        connected_s: How long connecting took.
        held: Connections when the rollout ended.
        status: How it ended.
        said: What was said of it at last.
        stages: Those that began.
        took_s: From the start to the end.
        counts: Devices by outcome.
        sent: Messages from devices.
        received: Messages to devices,
        received_bytes: and their bytes.
        published_bytes: Bytes of blobs that the hub published.
        bundle_bytes: Bytes of blobs that a device lacks.
        verifying_s: Time in which devices checked signatures.
        verified: How many.
        hub: What hub processes used.
        broker: What brokers used.
        checked: Records and answers.
        faults: What devices raised.
    """

    devices: int
    enrolled_by: str
    killed: bool
    enrolled_s: float
    connected_s: float
    held: int
    status: str
    said: str
    stages: list[Stage]
    took_s: float
    counts: Mapping[str, int]
    sent: int
    received: int
    received_bytes: int
    published_bytes: int
    bundle_bytes: int
    verifying_s: float
    verified: int
    hub: Usage
    broker: Usage
    checked: Checked
    faults: list[str]


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
    devices, checked = found.devices, found.checked
    final = sum(found.counts.get(state, 0) for state in ("SUCCEEDED", "ROLLED_BACK"))
    hub_ms = 1000 * found.hub.cpu_s / devices
    copies = found.published_bytes / found.bundle_bytes
    mib = 2.0**20
    rows = [
        ["connections held at the end", f"{found.held:,}"],
        [f"enrolled a second ({found.enrolled_by})", f"{devices / found.enrolled_s:,.0f}"],
        ["connected a second", f"{devices / found.connected_s:,.0f}"],
        [f"seconds of the rollout, which ended {found.status}", f"{found.took_s:.1f}"],
        ["messages from devices", f"{found.sent:,}"],
        ["messages to devices", f"{found.received:,}"],
        ["CPU seconds of the hub", f"{found.hub.cpu_s:.1f}"],
        ["CPU seconds of the broker", f"{found.broker.cpu_s:.1f}"],
        ["peak MiB of the hub", f"{found.hub.peak_bytes / mib:.0f}"],
        ["peak MiB of the broker", f"{found.broker.peak_bytes / mib:.0f}"],
        ["MiB of blobs published by the hub", f"{found.published_bytes / mib:.1f}"],
        ["MiB that a copy for each device would be", f"{devices * found.bundle_bytes / mib:.1f}"],
        ["MiB that devices received, all in", f"{found.received_bytes / mib:.1f}"],
        ["µs of a signature's check by a device", _each_us(found.verifying_s, found.verified)],
        ["records told", f"{checked.records:,}"],
        ["records lost", f"{checked.lost:,}"],
        ["records doubled", f"{checked.doubled:,}"],
        ["predictions told", f"{checked.predictions:,}"],
        ["predictions miscounted", f"{checked.miscounted:,}"],
        *([f"devices {state}", f"{number:,}"] for state, number in sorted(found.counts.items())),
    ]
    stages = [
        [
            str(number),
            f"{stage.devices:,}",
            f"{stage.ordered_s:.1f}",
            f"{stage.devices / stage.ordered_s:,.0f}" if stage.ordered_s else "-",
            f"{stage.took_s:.1f}",
        ]
        for number, stage in enumerate(found.stages, start=1)
    ]
    aims = [
        Aim("fleet-connections-held", found.held, ">=", devices),
        Aim("fleet-devices-final", final, ">=", devices),
        Aim("fleet-records-lost", checked.lost, "<=", 0),
        Aim("fleet-records-doubled", checked.doubled, "<=", 0),
        Aim("fleet-predictions-miscounted", checked.miscounted, "<=", 0),
        Aim("fleet-hub-cpu-ms-per-device", hub_ms, "<=", HUB_MS),
        Aim("fleet-copies-of-the-bundle-a-stage", copies / max(1, len(found.stages)), "<=", COPIES),
    ]
    killed = ", the hub killed in mid-rollout" if found.killed else ""
    return "\n\n".join(
        [
            table(f"A rollout to {devices:,} connected devices{killed}", ["what", "measured"], rows),
            table("Stages", ["stage", "devices", "ordered s", "orders a second", "took s"], stages),
            "\n".join(map(str, aims)),
        ]
    )


def _each_us(total_s: float, number: int) -> str:
    return f"{1e6 * total_s / number:.0f}" if number else "-"
