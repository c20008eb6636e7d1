"""A rollout to thousands of real connections: ``make bench-fleet``; docs/benchmarks.md says how.

::

    make a hub with two released versions ─► enrol devices ─► all connect to its Mosquitto
         ─► carry out `fleet_plan.yaml` to the end; with ``--kill-hub``, kill -9 in the middle of it
         ─► what hub, broker and devices used ─► every record that devices told, looked for in the hub's store
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.fleet_crowd import Crowd
from benchmarks.fleet_habits import Habits
from benchmarks.fleet_hub import NEW, OLD, HubProcess, enrolled_in_store, make_home, order_old_version
from benchmarks.fleet_report import Lived, Outcome, Wanted, checked, shown
from benchmarks.fleet_usage import BROKER, UsageMeter
from benchmarks.fleet_watch import Watch, progress
from fleet.protocol.errors import InvalidConfiguration
from fleet.protocol.manifest import Manifest
from hub.home import open_home

PLAN = Path(__file__).with_name("fleet_plan.yaml")
FILES_BESIDE = 256
"""Open files of a process beside its connections."""
SETTLE_LIMIT_S = 120.0


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
    if faults := outcome.lived.crowd.faults:
        sys.exit(f"{len(faults)} faults in devices; the first: {faults[0]}")


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
        progress(f"{wanted.devices:,} devices are enrolled")
        order_old_version(home, list(passwords), manifests[OLD])
        hub.start()
        lived = asyncio.run(
            _rolled_out(wanted, home, hub, token, _Members(passwords, manifests), meter=meter)
        )
    finally:
        hub.stop()
    files = manifests[NEW].files(manifests[NEW].variants[0])
    known = {file.sha256 for file in manifests[OLD].files(manifests[OLD].variants[0])}
    return Outcome(
        wanted=wanted,
        enrolled_s=enrolled_s,
        lived=lived,
        bundle_bytes=sum(file.size_bytes for file in files if file.sha256 not in known),
        hub=meter.total("hub"),
        broker=meter.total(BROKER),
        checked=checked(home, lived.told),
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


async def _rolled_out(
    wanted: Wanted, home: Path, hub: HubProcess, token: str, members: _Members, *, meter: UsageMeter
) -> Lived:
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
    watch = Watch(hub, token, meter, crowd, wanted.kill_hub)
    try:
        connected_s = await crowd.connect_all()
        progress(f"{crowd.connected:,} are connected")
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
    return Lived(crowd, told, connected_s, held, watch.course())


if __name__ == "__main__":
    main()
