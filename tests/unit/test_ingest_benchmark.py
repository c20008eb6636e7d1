"""The ingest benchmark at a tiny size: it measures what it says, and its aims can be read."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.ingest import SHAPES, Cost, Received, shown, taken_in, telemetry_ns, through_mosquitto
from benchmarks.ingest_load import published
from benchmarks.ingest_peers import per_message_ns
from benchmarks.table import WIDTH
from hub.store.sqlite import SqliteStore
from tests.support.brokers import require_mosquitto

LINE = re.compile(r"AIM ([a-z0-9-]+) (-|-?[0-9.]+) (<=|>=)([0-9.]+) (OK|MISS)( .+)?")


def test_a_tiny_run_takes_in_every_message(tmp_path: Path) -> None:
    messages = published(7, 300)
    cost = taken_in(tmp_path / "hub.db", messages, 50)
    store = SqliteStore(tmp_path / "hub.db")
    stored = [raw.data for raw in store.raw_records_after(0)]
    store.close()
    assert sorted(stored) == sorted(message.payload for message in messages)
    assert cost.reading_ns > 0
    assert cost.storing_ns > 0
    assert per_message_ns(tmp_path / "peer.db", messages[:20]) > 0
    assert telemetry_ns(tmp_path / "pass.db", 300) > 0


def test_a_tiny_run_through_mosquitto_takes_in_what_was_sent(tmp_path: Path) -> None:
    require_mosquitto()
    received = through_mosquitto(tmp_path / "muster", "muster", 200)
    assert received is not None
    assert 0 < received.taken <= 200
    assert received.ns > 0


def test_the_aims_compare_with_peers_of_the_same_run() -> None:
    costs = {shape: Cost(1000.0, 1500.0) for shape in SHAPES}
    received = {
        "muster": Received(10, 12_500.0, 100.0),
        "paho": Received(10, 30_000.0, 1.0),
        "pydantic": Received(10, 250_000.0, 1.0),
    }
    text = shown(costs, 100_000.0, 5000.0, received)
    assert "AIM ingest-messages-per-cpu-second-after-mqtt 400000 >=300000 OK" in text
    assert "AIM ingest-messages-per-cpu-second-with-mqtt 80000 >=60000 OK" in text
    assert "AIM ingest-speed-to-paho-pydantic-sqlite-utils 20 >=5 OK" in text
    without = shown(costs, 100_000.0, 5000.0, {"muster": None, "paho": None, "pydantic": None})
    lines = [line for each in (text, without) for line in each.splitlines() if line.startswith("AIM")]
    assert all(LINE.fullmatch(line) for line in lines)
    assert sum("MISS Mosquitto could not be run" in line for line in lines) == 2
    assert all(len(line) <= WIDTH for line in text.splitlines())
