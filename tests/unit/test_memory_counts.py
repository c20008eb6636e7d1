"""Readings of memory: taken by the agent at the end of each window, kept apart by size, added like counts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent.life.footprint import measure_own_bytes
from agent.telemetry.outbox import Outbox
from agent.telemetry.recorder import Recorder
from fleet.protocol.memory import bucket_of_bytes, quantile_bytes
from fleet.protocol.records import SealedWindow, TelemetryWindow
from fleet.protocol.windows import contradiction, merge_windows
from tests.support.rollouts import NEW, window

MIB = 2**20


@pytest.mark.parametrize("size_bytes", [1, 1024, 4096, 50 * MIB, 3 * 2**30, 2**41])
def test_a_reading_is_known_to_a_fifth(size_bytes: int) -> None:
    bound = quantile_bytes({bucket_of_bytes(size_bytes): 7}, 0.5)
    assert bound is not None
    assert size_bytes <= bound
    assert bound <= max(1.2 * size_bytes, 1.2 * 1024)
    assert quantile_bytes({}, 0.5) is None


def test_windows_together_have_the_readings_of_both() -> None:
    left, right, silent = window(NEW, 0.0), window(NEW, 2.0), window(NEW, 4.0)
    left.memory, right.memory = {50: 1}, {50: 2, 51: 1}
    merged = merge_windows(merge_windows(left, right), silent)
    assert merged.memory_counts == {50: 3, 51: 1}
    assert merge_windows(silent, silent).memory is msgspec.UNSET
    merged.memory = {50: 2**52}
    assert contradiction(merged) is not None


def test_the_agent_reads_its_memory_when_a_window_ends(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox", 10**6)
    recorder = Recorder(
        outbox, lambda _now_s: [window(NEW, 0.0)], wake=lambda: None, on_incident=lambda _error: None
    )
    before_bytes = measure_own_bytes()
    recorder.keep_windows()
    (entry,) = outbox.take(10, beside=set())
    body = outbox.record(entry).body
    outbox.close()
    assert isinstance(body, TelemetryWindow)
    ((bucket, readings),) = body.memory_counts.items()
    assert readings == 1
    assert abs(bucket - bucket_of_bytes(before_bytes)) <= 2


def test_older_agents_say_nothing_of_memory() -> None:
    """Their windows are maps of 13 or 14 fields, in the short form; what may have 16 has the long one."""
    data = msgspec.msgpack.encode(window(NEW, 0.0))
    assert data[0] == 0xDE
    assert b"memory" not in data
    known = msgspec.msgpack.decode(bytes([0x80 + data[2]]) + data[3:], type=SealedWindow)
    assert known == msgspec.msgpack.decode(data, type=SealedWindow)
    assert known.memory_counts == {}
