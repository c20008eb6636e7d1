"""The telemetry pass is killed again and again: every window counts once, in every sum."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from fleet.drift.profile import FeatureCounts
from hub.store.sqlite import SqliteStore
from hub.store.telemetry_rows import DAY_S, HOUR_S, MINUTE_S
from tests.support.stores import add_device, incoming, window

WINDOWS, DEVICES, KILLS = 2400, 6, 4
PREDICTIONS = 4
STATEMENTS = 40
"""Among so many, a few steps of the pass, is the one at which it is killed."""
NOW_S = 1_700_000_000.0


def test_a_pass_that_is_killed_again_and_again_counts_every_window_once(tmp_path: Path) -> None:
    rng = random.Random(8)
    store = SqliteStore(tmp_path / "hub.db")
    try:
        _fill(store, rng)
        last = store.last_position()
        for kill in range(1, KILLS + 1):
            records = last * kill // (KILLS + 2)
            assert _run(tmp_path / "hub.db", records, rng.randrange(STATEMENTS)) == -signal.SIGKILL
            assert records <= store.telemetry_position() < last, "it was killed before it was done"
            _check(store, at_most=WINDOWS)
        assert _run(tmp_path / "hub.db") == 0
        assert store.telemetry_position() == last
        assert _check(store, at_most=WINDOWS) == WINDOWS
    finally:
        store.close()


def _fill(store: SqliteStore, rng: random.Random) -> None:
    for number in range(DEVICES):
        add_device(store, f"cam-{number}")
    for first in range(0, WINDOWS, 8):
        records = []
        for number in range(first, first + 8):
            body = window(predictions=PREDICTIONS)
            body.ended_at_s = NOW_S - rng.uniform(0, 4 * HOUR_S)
            body.started_at_s = body.ended_at_s - 10
            body.profile = {"output.class": FeatureCounts([1, 3, 0])}
            record = incoming(f"cam-{number % DEVICES}", number, body)
            records.append(msgspec.structs.replace(record, received_at_s=NOW_S))
        store.add_records(records)


def _run(database: Path, *end: int) -> int:
    """Count, to an end if one is given; return the exit code."""
    command = [sys.executable, "-m", "tests.support.telemetry_child", str(database), *map(str, end)]
    return subprocess.run(command, check=False, timeout=100).returncode


def _check(store: SqliteStore, *, at_most: int) -> int:
    """Check that all sums are of the same windows; return of how many."""
    totals = sum(row.totals.predictions for row in store.totals()) // PREDICTIONS
    for key, resolutions in (("all", (MINUTE_S, HOUR_S, DAY_S)), ("device", (HOUR_S, DAY_S))):
        for resolution_s in resolutions:
            rows = store.rollups(
                model="digits", key=key, start_s=0, end_s=2 * NOW_S, resolution_s=resolution_s
            )
            assert sum(row.windows for row in rows) == totals
            assert sum(row.window.predictions for row in rows) == totals * PREDICTIONS
            assert sum(row.window.profile["output.class"].cells[1] for row in rows) == totals * 3
    assert len(rows) <= 2 * DEVICES
    assert totals <= at_most
    return totals
