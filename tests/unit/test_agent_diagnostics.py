"""The diagnostic bundle: all that helps, within its limit, and of every secret not one byte."""

from __future__ import annotations

import gzip
import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest

from agent.diagnostics import BLACKED_OUT, MAX_LINE_BYTES, Live, collect, pack
from agent.identity import Identity, write_identity
from agent.life import hold
from agent.log import RecentEntries
from agent.settings import write_settings
from agent.telemetry.outbox import Counts
from fleet.protocol.enrolment import BrokerAccess
from fleet.protocol.errors import Cause, InvalidConfiguration
from fleet.protocol.messages import ModelState
from fleet.protocol.records import MAX_DIAGNOSTICS_SIZE_BYTES, Incident

SECRET = 'S3CR3T"\\é'
"""Every secret of the tests holds it; in JSON it looks otherwise."""


def lines(bundle: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(bundle).splitlines()]


def parts(bundle: bytes) -> dict[str, dict[str, Any]]:
    return {line["part"]: line for line in lines(bundle) if "part" in line}


@pytest.fixture(name="state")
def state_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of a device that has a secret wherever one can be."""
    access = BrokerAccess("127.0.0.1", 1883, "cam-1", f"{SECRET}-password")
    identity = Identity(
        "cam-1", "http://ana:S3CR3T-url@hub.example:8300/?token=S3CR3T", access, b"S3CR3T-root"
    )
    write_identity(tmp_path, identity)
    write_settings(tmp_path, {"readiness_command": ["/bin/ready", "--token", f"{SECRET}-argument"]})
    (tmp_path / "device.key").write_text(f"{SECRET}-key")
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "director.json").write_text(f"{SECRET}-director")
    monkeypatch.setenv("MUSTER_ENROLMENT_TOKEN", f"{SECRET}-token")
    monkeypatch.setenv("BROKER_PASSWORD", f"{SECRET}-environment")
    return tmp_path


def live(log_lines: list[str]) -> Live:
    return Live(
        models=(ModelState("digits", 1, "ab" * 32, "onnx-fp32", "STAGED", "d-2", "The vehicle moves."),),
        outbox=Counts(3, 2, 1, 999),
        connected=True,
        incidents=(Incident(5.0, Cause("no_space", f"Refused: {SECRET}-password")),),
        log_lines=log_lines,
    )


def test_no_byte_of_any_secret_is_in_it(state: Path) -> None:
    ring = RecentEntries()
    said = f"Connected as {SECRET}-password with {SECRET}-token."
    ring.emit(logging.makeLogRecord({"msg": said, "name": "agent.test", "levelname": "INFO"}))
    hold.hold(state, f"{SECRET}-password")
    bundle = collect(state, live(ring.lines()), "d-1a")
    assert b"S3CR3T" not in gzip.decompress(bundle)
    assert BLACKED_OUT in json.dumps(parts(bundle)["incidents"])
    assert lines(bundle)[-1]["message"] == f"Connected as {BLACKED_OUT} with {BLACKED_OUT}."


def test_it_tells_what_helps(state: Path) -> None:
    bundle = collect(state, live([]), "d-1a")
    told = parts(bundle)
    assert (told["bundle"]["request_id"], told["bundle"]["live"]) == ("d-1a", True)
    assert (told["device"]["device_id"], told["device"]["hub"]) == ("cam-1", "http://hub.example:8300")
    assert told["settings"]["readiness_command"] == ["/bin/ready", "2 argument(s)"]
    assert told["settings"]["heartbeat_interval_s"] == 30.0
    assert told["models"]["items"][0]["waiting_for"] == "The vehicle moves."
    assert told["outbox"]["counts"] == {"records": 3, "windows": 2, "sent": 1, "size_bytes": 999}
    assert told["process"]["status"]["VmRSS"].endswith("kB")
    assert "Pss" in told["process"]["smaps_rollup"]
    assert all(name.isidentifier() for name in told["process"]["smaps_rollup"])
    assert told["system"]["disk"]["free_bytes"] > 0
    assert told["clock"]["unix_s"] > 1.7e9
    assert [name for name, part in told.items() if "unreadable" in part] == []


def test_a_device_that_does_not_run_tells_the_rest(state: Path) -> None:
    told = parts(collect(state))
    assert told["bundle"]["live"] is False
    assert told.keys().isdisjoint({"process", "models", "outbox", "incidents"})
    assert told["lives"].keys() == {"part"}


def test_what_cannot_be_read_hides_nothing_else(state: Path) -> None:
    (state / "agent.toml").write_text("luck = 7")
    told = parts(collect(state))
    assert "InvalidConfiguration" in told["settings"]["unreadable"]
    assert told["device"]["device_id"] == "cam-1"


def test_a_folder_of_no_device_has_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration):
        collect(tmp_path)


def test_the_oldest_entries_are_left_out_until_it_fits() -> None:
    draw = random.Random(5)
    entries = [json.dumps({"message": f"{n} {draw.randbytes(300).hex()}"}) for n in range(1000)]
    bundle = pack({}, {"device": {"id": "cam-1"}}, entries, [])
    assert 0.98 * MAX_DIAGNOSTICS_SIZE_BYTES < len(bundle) <= MAX_DIAGNOSTICS_SIZE_BYTES
    first, device, *kept = lines(bundle)
    assert device["id"] == "cam-1"
    assert first["log_lines_left_out"] == 1000 - len(kept)
    assert [entry["message"] for entry in kept] == [json.loads(e)["message"] for e in entries[-len(kept) :]]


def test_a_part_that_is_too_large_makes_room_for_the_others() -> None:
    draw = random.Random(6)
    large = {name: {"text": draw.randbytes(MAX_LINE_BYTES).hex()} for name in "abcdefgh"}
    told = parts(pack({}, {**large, "device": {"id": "cam-1"}}, ["{not JSON"], []))
    assert told["a"]["left_out"].endswith("bytes")
    assert told["device"]["id"] == "cam-1"


def test_parts_that_are_too_large_together_leave_the_small_ones() -> None:
    draw = random.Random(7)
    large = {f"p-{n}": {"text": draw.randbytes(MAX_LINE_BYTES // 2 - 100).hex()} for n in range(12)}
    bundle = pack({}, {**large, "device": {"id": "cam-1"}}, ["{}"] * 9, [])
    assert len(bundle) <= MAX_DIAGNOSTICS_SIZE_BYTES
    assert parts(bundle)["device"]["id"] == "cam-1"


def test_the_log_in_memory_keeps_the_newest_within_its_budget() -> None:
    ring = RecentEntries(budget_bytes=2000)
    for number in range(100):
        ring.emit(logging.makeLogRecord({"msg": f"entry {number}", "levelname": "INFO"}))
    kept = ring.lines()
    assert sum(map(len, kept)) <= 2000
    assert json.loads(kept[-1])["message"] == "entry 99"
    assert 10 < len(kept) < 50
    ring.emit(logging.makeLogRecord({"msg": "é" * 10_000, "levelname": "INFO"}))
    assert sum(len(line.encode()) for line in ring.lines()) <= 2010
