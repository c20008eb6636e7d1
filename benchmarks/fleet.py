"""A rollout to thousands of real connections: ``make bench-fleet``; docs/benchmarks.md says how.

::

    make a hub with two released versions ─► enrol devices ─► all connect to its Mosquitto
         ─► carry out `fleet_plan.yaml` to the end; with ``--kill-hub``, kill -9 in the middle of it
         ─► what hub, broker and devices used ─► every record that devices told, looked for in the hub's store
"""

from __future__ import annotations

import argparse
import asyncio
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx

from benchmarks.aims import Aim
from benchmarks.fleet_crowd import Crowd, Told
from benchmarks.fleet_device import Habits
from benchmarks.fleet_hub import (
    NEW,
    OLD,
    HubProcess,
    enrolled_in_store,
    make_home,
    order_old_version,
)
from benchmarks.fleet_usage import BROKER, Usage, UsageMeter
from benchmarks.fleet_windows import MODEL
from benchmarks.table import table
from fleet.protocol.errors import HubUnavailable, InvalidConfiguration
from fleet.protocol.heads import read_head
from fleet.protocol.manifest import Manifest
from hub.cli.client import Client
from hub.home import open_home

PLAN = Path(__file__).with_name("fleet_plan.yaml")
FILES_BESIDE = 256
"""Open files of a process beside its connections."""
LOOK_S = 0.25
ROLLOUT_LIMIT_S = 1800.0
SETTLE_LIMIT_S = 120.0
HUB_MS, COPIES = 40.0, 3.0
KILLED_IN_STAGE = 3


class Wanted(NamedTuple):
    """What the command line asks for.

    Attributes:
        devices: How many.
        model_bytes: Size of the model's file.
        plan: Text of the plan.
        habits: How devices behave.
        enrol: ``api`` or ``store``.
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


class Stage(NamedTuple):
    """One stage as it went.

    Attributes:
        devices: That it added.
        took_s: From its begin to the next one's.
        ordered_s: From its begin until all of its devices had their order.
    """

    devices: int
    took_s: float
    ordered_s: float


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
    """What a run found."""

    wanted: Wanted
    enrolled_s: float
    connected_s: float
    held: int
    status: str
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


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks.fleet", description="A rollout to real connections.")
    parser.add_argument("--devices", type=int, default=5000, help="devices")
    parser.add_argument("--model-kib", type=int, default=256, help="size of the model's file")
    parser.add_argument("--plan", type=Path, default=PLAN, help="the plan's file")
    parser.add_argument("--enrol", choices=("api", "store"), default="api", help="how devices become members")
    parser.add_argument("--kill-hub", action="store_true", help="kill -9 the hub in mid-rollout")
    parser.add_argument("--no-verify", action="store_true", help="devices check no signatures")
    parser.add_argument("--seed", type=int, default=5, help="fixes what befalls whom")
    given = parser.parse_args()
    wanted = Wanted(
        devices=given.devices,
        model_bytes=1024 * given.model_kib,
        plan=given.plan.read_text(),
        habits=Habits(verify=not given.no_verify),
        enrol=given.enrol,
        kill_hub=given.kill_hub,
        seed=given.seed,
    )
    with tempfile.TemporaryDirectory(prefix="bench-fleet-") as folder:
        outcome = run(wanted, Path(folder))
    sys.stdout.write(shown(outcome) + "\n")
    if outcome.faults:
        sys.exit(f"{len(outcome.faults)} faults in devices; the first: {outcome.faults[0]}")


def run(wanted: Wanted, folder: Path) -> Outcome:
    """Run it all.

    Args:
        wanted: What.
        folder: An empty one for the hub.

    Raises:
        InvalidConfiguration: The system allows too few open files for so many devices.
    """
    allow_open_files(wanted.devices + FILES_BESIDE)
    home = folder / "hub"
    token, manifests = make_home(home, wanted.model_bytes)
    hub, meter = HubProcess(home), UsageMeter()
    try:
        begun_s = time.perf_counter()
        if wanted.enrol == "api":
            hub.start()
            begun_s = time.perf_counter()
            passwords = hub.enrol(token, wanted.devices)
        else:
            passwords = enrolled_in_store(home, wanted.devices)
        enrolled_s = time.perf_counter() - begun_s
        hub.stop()
        _progress(f"{wanted.devices:,} devices are enrolled")
        order_old_version(home, list(passwords), manifests[OLD])
        hub.start()
        rolled = asyncio.run(
            _rolled_out(wanted, home, hub, token, _Members(passwords, manifests), meter=meter)
        )
    finally:
        hub.stop()
    checked = _checked(home, rolled.told)
    files = manifests[NEW].files(manifests[NEW].variants[0])
    known = {file.sha256 for file in manifests[OLD].files(manifests[OLD].variants[0])}
    crowd = rolled.crowd
    return Outcome(
        wanted=wanted,
        enrolled_s=enrolled_s,
        connected_s=rolled.connected_s,
        held=rolled.held,
        status=rolled.status,
        stages=rolled.stages,
        took_s=rolled.took_s,
        counts=rolled.counts,
        sent=crowd.fleet.traffic.sent,
        received=crowd.fleet.traffic.received,
        received_bytes=crowd.fleet.traffic.received_bytes,
        published_bytes=rolled.published_bytes,
        bundle_bytes=sum(file.size_bytes for file in files if file.sha256 not in known),
        verifying_s=crowd.fleet.verifying_s,
        verified=crowd.fleet.verified,
        hub=meter.total("hub"),
        broker=meter.total(BROKER),
        checked=checked,
        faults=crowd.faults,
    )


def allow_open_files(number: int) -> None:
    """Let this process, and those that it starts, open so many files.

    Raises:
        InvalidConfiguration: The system does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= number:
        return
    if number > hard:
        raise InvalidConfiguration(
            f"{number} open files are needed and {hard} are allowed.", remedy="Raise `ulimit -Hn`."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


class _Members(NamedTuple):
    """Who takes part: passwords by device, and what they may run by version."""

    passwords: Mapping[str, str]
    manifests: Mapping[int, Manifest]


class _Rolled(NamedTuple):
    """What was seen of a rollout while devices were connected."""

    crowd: Crowd
    told: Told
    connected_s: float
    held: int
    status: str
    stages: list[Stage]
    took_s: float
    counts: Mapping[str, int]
    published_bytes: int


async def _rolled_out(
    wanted: Wanted, home: Path, hub: HubProcess, token: str, members: _Members, *, meter: UsageMeter
) -> _Rolled:
    opened = open_home(home)
    opened.store.close()
    crowd = Crowd(
        hub.address.mqtt_port,
        members.passwords,
        opened.director.public_key,
        members.manifests,
        habits=wanted.habits,
        seed=wanted.seed,
    )
    living = asyncio.ensure_future(crowd.live())
    watch = _Watch(hub, token, meter, crowd, wanted.kill_hub)
    try:
        connected_s = await crowd.connect_all()
        _progress(f"{crowd.connected:,} are connected")
        await asyncio.to_thread(watch.wait_heard, wanted.devices)
        await asyncio.to_thread(watch.start, wanted.plan)
        await asyncio.to_thread(watch.until_ended)
        held = crowd.connected
        living.cancel()
        told = await crowd.settle(SETTLE_LIMIT_S)
        await asyncio.to_thread(watch.wait_counted)
    finally:
        living.cancel()
        await crowd.close()
    return _Rolled(
        crowd,
        told,
        connected_s,
        held,
        watch.status,
        watch.stages(),
        watch.took_s,
        watch.counts,
        watch.published_bytes,
    )


class _Watch:
    """Starts the rollout and looks at it until it has ended; called in a thread."""

    def __init__(self, hub: HubProcess, token: str, meter: UsageMeter, crowd: Crowd, kill: bool) -> None:
        self._hub, self._token, self._meter, self._crowd = hub, token, meter, crowd
        self._kill = kill
        self._number = 0
        self._marks: list[tuple[float, float]] = []
        self._sizes: list[int] = []
        self._begun_s = 0.0
        self._published: list[int] = [0]
        self.took_s = 0.0
        self.status = self.said = ""
        self.counts: Mapping[str, int] = {}

    @property
    def published_bytes(self) -> int:
        """Bytes of blobs that every hub process published."""
        return sum(self._published)

    def wait_heard(self, devices: int) -> None:
        """Wait until the hub has heard of every device."""
        with closing(self._client()) as client:
            while client.get("/fleet/health")["online"] < devices:
                time.sleep(LOOK_S)
        self._meter.look(self._hub.pid)

    def start(self, plan: str) -> None:
        """Create and start the rollout."""
        with closing(self._client()) as client:
            made = client.post("/rollouts", {"model": MODEL, "version": NEW, "plan": plan, "seed": 1})
            self._number = made["number"]
            self._begun_s = time.perf_counter()
            client.post(f"/rollouts/{self._number}/start")

    def until_ended(self) -> None:
        """Look until the rollout has ended, or for `ROLLOUT_LIMIT_S`."""
        client = self._client()
        while not self._look(client) and time.perf_counter() - self._begun_s < ROLLOUT_LIMIT_S:
            self._meter.look(self._hub.pid)
            if self._kill and len(self._marks) >= KILLED_IN_STAGE:
                self._kill = False
                client.close()
                self._hub.kill()
                _progress("the hub is killed")
                self._published.append(0)
                self._hub.start()
                client = self._client()
            time.sleep(LOOK_S)
        client.close()
        self.took_s = time.perf_counter() - self._begun_s
        _progress(f"the rollout is {self.status}. {self.said}")

    def wait_counted(self) -> None:
        """Wait until the telemetry pass has counted what came."""
        deadline_s = time.perf_counter() + SETTLE_LIMIT_S
        while self._metric("muster_telemetry_waiting_records") > 0 and time.perf_counter() < deadline_s:
            time.sleep(LOOK_S)
        self._look_at_blobs()
        self._meter.look(self._hub.pid)

    def stages(self) -> list[Stage]:
        """Return the stages that began."""
        begins = [begun_s for begun_s, _ in self._marks]
        ends = [*begins[1:], self.took_s]
        return [
            Stage(size, end_s - begun_s, max(0.0, ordered_s - begun_s))
            for size, (begun_s, ordered_s), end_s in zip(self._sizes, self._marks, ends, strict=False)
        ]

    def _look(self, client: Client) -> bool:
        """Note where the rollout stands; tell whether it has ended."""
        now_s = time.perf_counter() - self._begun_s
        try:
            row = client.get("/rollouts", limit=1)["items"][0]
        except HubUnavailable:
            return False
        self._sizes = [stage["devices"] for stage in row["stages"]]
        self.status, self.counts = row["status"], row["counts"]
        self.said = row["pause_reason"] or row["verdict"] or ""
        while len(self._marks) < row["stage"]:
            self._marks.append((now_s, now_s))
        self._look_at_blobs()
        asked = self._crowd.ordered
        if asked < sum(self._sizes[: row["stage"]]):
            self._marks[-1] = self._marks[-1][0], now_s
        return self.status in {"SUCCEEDED", "ABORTED", "ROLLED_BACK", "FAILED", "PAUSED"}

    def _look_at_blobs(self) -> None:
        self._published[-1] = int(self._metric("muster_blob_published_bytes_total"))

    def _metric(self, name: str) -> float:
        headers = {"Authorization": f"Bearer {self._token}"}
        text = httpx.get(f"{self._hub.address.url}/metrics", headers=headers, timeout=60.0).text
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def _client(self) -> Client:
        return Client(self._hub.address.url, self._token)


def _checked(home: Path, told: Told) -> Checked:
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
    devices, checked = found.wanted.devices, found.checked
    final = sum(found.counts.get(state, 0) for state in ("SUCCEEDED", "ROLLED_BACK"))
    hub_ms = 1000 * found.hub.cpu_s / devices
    copies = found.published_bytes / found.bundle_bytes
    mib = 2.0**20
    rows = [
        ["connections held at the end", f"{found.held:,}"],
        [f"enrolled a second ({found.wanted.enrol})", f"{devices / found.enrolled_s:,.0f}"],
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


def _progress(text: str) -> None:
    sys.stderr.write(f"  {text}\n")


if __name__ == "__main__":
    main()
