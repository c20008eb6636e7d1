"""What an embedded model counted, while no agent takes it: kept within a bound, merged before it is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.embedded.reporter import Reporter
from fleet.protocol.records import TelemetryWindow


def window(number: int, version: int = 1) -> TelemetryWindow:
    return TelemetryWindow(
        float(number), number + 1.0, "digits", version, f"{version:064x}", "onnx-fp32", predictions=number
    )


def test_windows_without_an_agent_are_merged_and_none_is_lost(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path / "nobody", limit=4)
    for number in range(1, 51):
        reporter.add([window(number, version=1 + number % 2)])
    waiting = reporter.waiting
    assert len(waiting) == 4
    assert sum(each.predictions for each in waiting if each.version == 1) == sum(range(2, 51, 2))
    assert sum(each.predictions for each in waiting if each.version == 2) == sum(range(1, 51, 2))
    assert max(each.ended_at_s for each in waiting) == 51.0


def test_versions_beyond_the_bound_are_given_up_the_oldest_first(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path / "nobody", limit=3)
    reporter.add(window(number, version=number) for number in range(1, 6))
    assert [each.version for each in reporter.waiting] == [3, 4, 5]


def test_nothing_is_delivered_where_nobody_listens(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path / "nobody")
    assert reporter.deliver()
    reporter.add([window(1)])
    assert not reporter.deliver()
    assert reporter.waiting == (window(1),)


@pytest.mark.parametrize("module", ["numpy", "onnxruntime", "msgspec"])
def test_the_package_alone_costs_an_application_nothing(module: str) -> None:
    code = f"import agent, sys; assert {module!r} not in sys.modules, 'imported'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
