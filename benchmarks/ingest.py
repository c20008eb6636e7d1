"""What a message costs the hub, side by side with peers: ``make bench-ingest``; docs/benchmarks.md says how.

::

    windows as devices send them ─► decoded, validated, durable, in batches ─► the telemetry pass
                                 ─► the same through a real Mosquitto at QoS 1, to a process of its own
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.aims import Aim
from benchmarks.ingest_load import DIGEST, NOW_S, Sender, payloads, published, reference
from benchmarks.ingest_peers import per_message_ns
from benchmarks.ingest_receiver import NO_LIMIT
from benchmarks.measure import ROOT
from benchmarks.table import table
from fleet.protocol.errors import BrokerUnavailable
from fleet.protocol.topics import HUB_ACCOUNT
from hub.broker.accounts import hash_password, new_password
from hub.broker.process import start_broker
from hub.floods import Floods
from hub.ingest_batch import BatchReader
from hub.mqtt_packets import Published
from hub.store.sqlite import SqliteStore
from hub.telemetry.counting import Telemetry

CATCHING_UP = (100, 4096)
"""Devices, and messages in a batch: a fleet comes back, and the hub has as much as it takes at once."""
SHAPES = (
    CATCHING_UP,
    (100, 1000),
    (100, 256),
    (1000, 4096),
    (1000, 256),
    (10_000, 4096),
    (10_000, 256),
    (100, 1),
)
PEER_MESSAGES = 1000
SENDERS = 20


class Cost(NamedTuple):
    """What one message costs, in nanoseconds of CPU time."""

    reading_ns: float
    storing_ns: float

    @property
    def total_ns(self) -> float:
        """Both together."""
        return self.reading_ns + self.storing_ns


class Received(NamedTuple):
    """What a receiver took of what was sent, and the CPU time of one, in nanoseconds."""

    taken: int
    ns: float
    in_a_batch: float


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks.ingest", description="Measure the hub's ingest.")
    parser.add_argument("--messages", type=int, default=100_000, help="in each run")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)  # what is found in random windows is no news
    with tempfile.TemporaryDirectory(prefix="bench-ingest-") as temporary:
        folder = Path(temporary)
        costs = after_mqtt(folder, arguments.messages, arguments.rounds)
        peer_ns = statistics.median(
            per_message_ns(folder / f"peer-{turn}.db", published(100, min(arguments.messages, PEER_MESSAGES)))
            for turn in range(arguments.rounds)
        )
        sys.stderr.write("  after MQTT\n")
        pass_ns = telemetry_ns(folder / "pass.db", arguments.messages)
        sys.stderr.write("  telemetry pass\n")
        received = {
            by: through_mosquitto(folder / by, by, number)
            for by, number in (
                ("muster", arguments.messages),
                ("paho", arguments.messages // 2),
                ("pydantic", min(arguments.messages, 4 * PEER_MESSAGES)),
            )
        }
    sys.stdout.write(shown(costs, peer_ns, pass_ns, received) + "\n")


def after_mqtt(folder: Path, messages: int, rounds: int) -> dict[tuple[int, int], Cost]:
    """Return the cost of a message for each of `SHAPES`: the median over turns."""
    costs: dict[tuple[int, int], list[Cost]] = {shape: [] for shape in SHAPES}
    for turn in range(rounds):
        for devices, batch in SHAPES:
            number = messages if batch > 1 else min(messages, PEER_MESSAGES)
            path = folder / f"{turn}-{devices}-{batch}.db"
            costs[devices, batch].append(taken_in(path, published(devices, number), batch))
            for file in folder.glob(f"{path.name}*"):
                file.unlink()
    return {shape: statistics.median_low(each) for shape, each in costs.items()}


def taken_in(path: Path, messages: list[Published], batch: int) -> Cost:
    """Decode, validate and store messages in batches, durably; return the cost of one."""
    store = SqliteStore(path)
    reader = BatchReader(lambda _, __: DIGEST, Floods(store, NO_LIMIT).admit)
    gc.collect()
    gc.freeze()  # what was made for the measurement is no part of the hub
    reading_ns = storing_ns = 0
    for first in range(0, len(messages), batch):
        begun_ns = time.process_time_ns()
        ready = reader.read(messages[first : first + batch], NOW_S + 1)
        read_ns = time.process_time_ns()
        new = store.take_in(ready.intake(1000))
        storing_ns += time.process_time_ns() - read_ns
        reading_ns += read_ns - begun_ns
        assert new == min(batch, len(messages) - first)
    gc.unfreeze()
    store.close()
    return Cost(reading_ns / len(messages), storing_ns / len(messages))


def telemetry_ns(path: Path, messages: int) -> float:
    """Return the CPU time in which the pass counts one window that is stored."""
    taken_in(path, published(100, messages), 4096)
    store = SqliteStore(path)
    telemetry = Telemetry(
        store, reference=lambda _, __: (DIGEST, reference()), block_predictions=300, group_by=("site",)
    )
    begun_ns = time.process_time_ns()
    telemetry.advance()
    spent_ns = time.process_time_ns() - begun_ns
    store.close()
    return spent_ns / messages


def through_mosquitto(folder: Path, by: str, messages: int) -> Received | None:
    """Send messages through a real Mosquitto to a receiver; None without Mosquitto."""
    folder.mkdir()
    devices = [f"cam-{number}" for number in range(SENDERS)]
    passwords = {account: new_password() for account in (*devices, HUB_ACCOUNT)}
    hashes = {account: hash_password(password) for account, password in passwords.items()}

    async def measured() -> Received:
        broker = await start_broker("mosquitto", folder / "broker", "127.0.0.1", 0, hashes)
        try:
            return await asyncio.to_thread(_received, by, broker.port, passwords, folder, messages)
        finally:
            await broker.stop()

    try:
        result = asyncio.run(measured())
    except BrokerUnavailable as error:
        sys.stderr.write(f"  {error}\n")
        return None
    sys.stderr.write(f"  through Mosquitto to {by}\n")
    return result


def _received(by: str, port: int, passwords: dict[str, str], folder: Path, messages: int) -> Received:
    command = [sys.executable, "-m", "benchmarks.ingest_receiver", by, str(port), str(folder), str(messages)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as receiver:
        assert receiver.stdin is not None
        assert receiver.stdout is not None
        receiver.stdin.write(passwords[HUB_ACCOUNT] + "\n")
        receiver.stdin.flush()
        assert receiver.stdout.readline() == "ready\n"
        sender = Sender(
            port, {account: passwords[account] for account in passwords if account != HUB_ACCOUNT}
        )
        sender.send(payloads(SENDERS, messages))
        result = json.loads(receiver.stdout.readline())
        sender.close()
    taken = result["taken"]
    return Received(taken, result["spent_ns"] / taken, taken / result["batches"] if by == "muster" else 1.0)


def shown(
    costs: Mapping[tuple[int, int], Cost],
    peer_ns: float,
    pass_ns: float,
    received: Mapping[str, Received | None],
) -> str:
    """Return the tables and the aims."""
    rows = [
        [f"{devices:,}", f"{batch:,}", _us(cost.reading_ns), _us(cost.storing_ns), _rate(cost.total_ns)]
        for (devices, batch), cost in costs.items()
    ]
    rows.append(["pydantic + sqlite-utils", "1", "-", _us(peer_ns), _rate(peer_ns)])
    names = {
        "muster": "muster",
        "paho": "paho, nothing done with it",
        "pydantic": "paho, pydantic + sqlite-utils",
    }
    through = [[names[by], *_through(result)] for by, result in received.items()]
    ours, theirs = received["muster"], received["pydantic"]
    missing = "Mosquitto could not be run"
    best = costs[CATCHING_UP].total_ns
    aims = [
        Aim("ingest-messages-per-cpu-second-after-mqtt", 1e9 / best, ">=", 300_000.0),
        Aim("ingest-speed-to-pydantic-sqlite-utils-after-mqtt", peer_ns / best, ">=", 10.0),
        Aim(
            "ingest-messages-per-cpu-second-with-mqtt",
            1e9 / ours.ns if ours else None,
            ">=",
            60_000.0,
            "" if ours else missing,
        ),
        Aim(
            "ingest-speed-to-paho-pydantic-sqlite-utils",
            theirs.ns / ours.ns if ours and theirs else None,
            ">=",
            5.0,
            "" if ours and theirs else missing,
        ),
    ]
    return "\n\n".join(
        [
            table(
                "After MQTT: decoded, validated and durable",
                ["devices", "batch", "reading µs", "storing µs", "a CPU second"],
                rows,
            ),
            table(
                "Through Mosquitto at QoS 1, the receiver's process",
                ["by", "messages", "in a batch", "CPU µs", "a CPU second"],
                through,
            ),
            f"Telemetry pass, of each window: {_us(pass_ns)} CPU µs, {_rate(pass_ns)} a CPU second",
            "\n".join(str(aim) for aim in aims),
        ]
    )


def _through(result: Received | None) -> list[str]:
    if result is None:
        return ["-"] * 4
    return [f"{result.taken:,}", f"{result.in_a_batch:.0f}", _us(result.ns), _rate(result.ns)]


def _us(ns: float) -> str:
    return f"{ns / 1000:.2f}"


def _rate(ns: float) -> str:
    return f"{1e9 / ns:,.0f}"


if __name__ == "__main__":
    main()
