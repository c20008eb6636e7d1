"""A process that steers rollouts is killed by SIGKILL at one of its writes, and the next one goes on.

That every statement and every order of events holds is for `tests.property.test_rollout_machine`; here it is
a real process that dies, and real files that it leaves.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.rollout.state.rollout import Status
from tests.support.rollout_campaign import begin, releases, run
from tests.support.rollout_world import World
from tests.support.thoroughness import ALL

pytestmark = pytest.mark.thorough

KILLS = 24 if ALL else 1


def _ended(folder: Path, first: int) -> tuple[dict[str, Any], int]:
    """Run the campaign to its end in this process; return what is stored then and how much was written."""
    world = World(folder, None, releases())
    try:
        statements = run(world, first, lambda number: None)
        statuses = [row.state.status for row in reversed(world.store.rollouts())]
        assert statuses == [Status.SUCCEEDED, Status.ROLLED_BACK, Status.SUCCEEDED]
        return world.tables(), statements
    finally:
        world.close()


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_process_that_is_killed_while_it_writes_changes_nothing_but_time(tmp_path: Path, kill: int) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    begin(undisturbed)
    shutil.copytree(undisturbed, killed)
    expected, statements = _ended(undisturbed, 0)
    (killed / "phase").write_text("0")
    at = (2 * kill + 1) * statements // (2 * KILLS)
    command = [sys.executable, "-m", "tests.support.rollout_campaign", str(killed), str(at)]
    died = subprocess.run(command, check=False, capture_output=True, timeout=120)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert _ended(killed, int((killed / "phase").read_text()))[0] == expected
