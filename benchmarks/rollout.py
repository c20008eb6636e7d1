"""What a rollout of a large fleet costs: ``make bench-rollout``; docs/benchmarks.md says how.

::

    create a rollout, start it, let its last stage begin
         ─► every device reports its way, in any order ─► engine alone: CPU seconds
         ─► the same, every batch stored with its position ─► engine and store: seconds on the wall
         ─► what the state takes in memory
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.aims import Aim
from benchmarks.table import table
from fleet.protocol.assignment import ModelOrder
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.messages import Capabilities
from fleet.rollout.engine import create, step
from fleet.rollout.events import (
    Assign,
    Command,
    DeploymentReported,
    DeploymentsReported,
    Promote,
    Start,
    Ticked,
)
from fleet.rollout.plans.plan import ALL, Plan, Stage, default_gate
from fleet.rollout.state.columns import forward_id
from fleet.rollout.state.rollout import Kind, Rollout, Status
from hub.rollouts.advancing import RECORDS_PER_STEP
from hub.store.rows import NewDevice, OrderChange
from hub.store.sqlite import SqliteStore

BATCH = RECORDS_PER_STEP
"""Reports of a step, as many as the hub reads at once."""
WAY = (
    DeploymentState.DOWNLOADING,
    DeploymentState.STAGED,
    DeploymentState.TRIAL,
    DeploymentState.SUCCEEDED,
)
NUMBER = 1
MODEL = "digits"
STRATA = ("pi4 / lyon", "pi4 / oslo", "pi5 / lyon", "jetson / oslo")
ENGINE_PER_S, STORED_PER_S, BYTES = 20_000, 5_000, 200
CAPABILITIES = Capabilities(
    agent_version="0.1.0", architecture="aarch64", runtimes={}, memory_bytes=2**30, free_bytes=2**33
)


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.rollout", description="Measure a rollout of a large fleet."
    )
    parser.add_argument("--devices", type=int, default=100_000, help="devices of the rollout")
    parser.add_argument("--stored", type=int, default=5_000, help="devices that report with the store behind")
    parser.add_argument("--seed", type=int, default=5, help="fixes the order of reports")
    arguments = parser.parse_args()
    count = arguments.devices
    bytes_each = _bytes_each(count)
    running, started_s = _running(count)
    batches = list(_batches(running, count, arguments.seed))
    sys.stderr.write("  the rollout runs\n")
    engine_s, tick_ms, ended = _engine(running, batches)
    stored_s, orders_s = _stored(min(arguments.stored, count), arguments.seed)
    reports = count * len(WAY)
    stored_reports = min(arguments.stored, count) * len(WAY)
    rows = [
        ["reports a second, engine alone", f"{reports / engine_s:,.0f}"],
        ["reports a second, engine and durable store", f"{stored_reports / stored_s:,.0f}"],
        ["orders a second, engine and durable store", f"{min(arguments.stored, count) / orders_s:,.0f}"],
        ["seconds to create, start and order all", f"{started_s:.2f}"],
        ["milliseconds of a tick that finds nothing due", f"{tick_ms:.3f}"],
        ["bytes of state for a device", f"{bytes_each:.0f}"],
        ["MB of state for 100,000 devices", f"{bytes_each / 10:.1f}"],
    ]
    assert ended.status is Status.RUNNING
    assert ended.counts == {DeploymentState.SUCCEEDED: count}
    aims = [
        Aim("rollout-reports-per-s", reports / engine_s, ">=", ENGINE_PER_S),
        Aim("rollout-stored-reports-per-s", stored_reports / stored_s, ">=", STORED_PER_S),
        Aim("rollout-bytes-per-device", bytes_each, "<=", BYTES),
    ]
    shown = table(f"A rollout to {count:,} devices, in batches of {BATCH}", ["what", "measured"], rows)
    sys.stdout.write("\n".join([shown, "", *map(str, aims)]) + "\n")


def _plan() -> Plan:
    stages = ("1%", ALL)
    return Plan(
        stages=tuple(Stage(devices=d, minimum_bake_s=600.0, maximum_bake_s=7200.0) for d in stages),
        gate=default_gate(),
    )


def _name(number: int) -> str:
    return f"camera-{number:07d}"


def _created(count: int) -> Rollout:
    names = [_name(number) for number in range(count)]
    return create(
        number=NUMBER,
        kind=Kind.UPDATE,
        model=MODEL,
        version=2,
        manifest_sha256="b" * 64,
        plan=_plan(),
        seed=3,
        devices=dict.fromkeys(names, 1),
        now_s=1000.0,
        strata={name: STRATA[place % len(STRATA)] for place, name in enumerate(names)},
    )


def _bytes_each(count: int) -> float:
    """Return what the state of a rollout under way takes for each device, all in."""
    tracemalloc.start()
    try:
        rollout = _created(count)
        rollout = step(rollout, Start("ana"), 1000.0)[0]
        rollout = step(rollout, Promote("ana", "a benchmark"), 1000.0)[0]
        size_bytes = tracemalloc.get_traced_memory()[0]
        assert len(rollout.deployments) == count
    finally:
        tracemalloc.stop()
    return size_bytes / count


def _running(count: int) -> tuple[Rollout, float]:
    """Return a rollout of which every device was sent its order, and how long that took."""
    before_s = time.process_time()
    rollout = step(_created(count), Start("ana"), 1000.0)[0]
    rollout, commands = step(rollout, Promote("ana", "a benchmark"), 1000.0)
    took_s = time.process_time() - before_s
    assert sum(isinstance(command, Assign) for command in commands) == count - -(-count // 100)
    return rollout, took_s


def _batches(rollout: Rollout, count: int, seed: int) -> Iterator[DeploymentsReported]:
    """Yield the reports of all devices, each device's in order, those of different ones mixed."""
    chance = random.Random(seed)  # noqa: S311 - a simulation
    places = [place for place in range(count) for _ in WAY]
    chance.shuffle(places)
    reached = [0] * count
    members = rollout.deployments.members
    reports: list[DeploymentReported] = []
    for place in places:
        state = WAY[reached[place]]
        reached[place] += 1
        reports.append(DeploymentReported(members.device_id(place), forward_id(NUMBER, place), state, 1001.0))
        if len(reports) == BATCH:
            yield DeploymentsReported(tuple(reports))
            reports = []
    if reports:
        yield DeploymentsReported(tuple(reports))


def _engine(rollout: Rollout, batches: list[DeploymentsReported]) -> tuple[float, float, Rollout]:
    """Return the CPU seconds of all batches, the milliseconds of a tick, and the state in the end."""
    before_s = time.process_time()
    for batch in batches:
        rollout, _ = step(rollout, batch, 1001.0)
    took_s = time.process_time() - before_s
    rollout, _ = step(rollout, Ticked(), 1002.0)
    before_s = time.process_time()
    for _ in range(100):
        step(rollout, Ticked(), 1002.0)
    return took_s, 10 * (time.process_time() - before_s), rollout


def _stored(count: int, seed: int) -> tuple[float, float]:
    """Return the seconds on the wall of all batches with the store behind, and of the orders."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-rollout-") as folder,
        closing(SqliteStore(Path(folder) / "hub.db")) as store,
    ):
        _enrol(store, count)
        rollout = store.create_rollout(lambda _: _created(count), 1000.0).state
        before_s = time.perf_counter()
        for event in (Start("ana"), Promote("ana", "a benchmark")):
            after, commands = step(rollout, event, 1000.0)
            store.apply_step(after, previous=rollout, position=0, changes=_orders(commands))
            rollout = after
        orders_s = time.perf_counter() - before_s
        batches = list(_batches(rollout, count, seed))
        before_s = time.perf_counter()
        for position, batch in enumerate(batches, start=1):
            after, commands = step(rollout, batch, 1001.0)
            store.apply_step(after, previous=rollout, position=position, changes=_orders(commands))
            rollout = after
        return time.perf_counter() - before_s, orders_s


def _enrol(store: SqliteStore, count: int) -> None:
    """Enrol the devices; only here this many at once."""
    for number in range(count):
        token = f"token {number}"
        store.add_enrolment_token(token, created_at_s=0.0, expires_at_s=100.0)
        store.enrol(NewDevice(_name(number), "", {}, CAPABILITIES), token_sha256=token, now_s=50.0)


def _orders(commands: tuple[Command, ...]) -> list[OrderChange]:
    return [
        OrderChange(
            command.device_id,
            MODEL,
            ModelOrder(MODEL, 2, b"\xab" * 32, "onnx-fp32", command.deployment_id),
        )
        for command in commands
        if isinstance(command, Assign)
    ]


if __name__ == "__main__":
    main()
