"""The fleet benchmark at a small size: real connections, a real hub and Mosquitto, a rollout to its end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.fleet import run
from benchmarks.fleet_habits import Habits
from benchmarks.fleet_report import Wanted, shown
from benchmarks.table import WIDTH
from tests.support.brokers import require_mosquitto

DEVICES = 40
PLAN = """
stages:
  - {devices: 50%, minimum_bake_s: 0.2, maximum_bake_s: 60}
  - {devices: all, minimum_bake_s: 0.2, maximum_bake_s: 60}
gate:
  maximum_failed_share: 0.5
  metrics:
    - {metric: label_errors, margin: 0.3, limit: 0.6}
"""
LINE = re.compile(r"AIM fleet-[a-z-]+ -?[0-9.]+ (<=|>=)[0-9.]+ (OK|MISS)")


@pytest.mark.long
def test_a_small_fleet_goes_through_a_rollout_and_nothing_is_lost_or_counted_twice(tmp_path: Path) -> None:
    require_mosquitto()
    habits = Habits(heartbeat_s=5.0, window_s=2.0, trial_s=0.3, away_s=0.5)
    found = run(Wanted(DEVICES, 70_000, PLAN, habits, enrol="store", seed=3), tmp_path)
    lived, course = found.lived, found.lived.course
    assert course.status == "SUCCEEDED", course.said
    assert lived.crowd.faults == []
    assert lived.held == DEVICES
    assert course.counts["SUCCEEDED"] + course.counts.get("ROLLED_BACK", 0) == DEVICES
    assert found.checked.records >= 5 * DEVICES
    assert (found.checked.lost, found.checked.doubled, found.checked.miscounted) == (0, 0, 0)
    assert lived.crowd.fleet.verified >= DEVICES
    assert 0 < found.bundle_bytes <= course.published_bytes
    assert found.hub.cpu_s > 0
    text = shown(found)
    assert all(len(line) <= WIDTH for line in text.splitlines())
    aims = [line for line in text.splitlines() if line.startswith("AIM")]
    assert len(aims) == 7
    assert all(LINE.fullmatch(line) for line in aims)
