"""A process gets SIGKILL in each phase of a model's life, the moment that phase is written down.

The phases are those of the machine's table: a new one without a scenario here fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.life.terms import Phase
from fleet.protocol.deployment import DeploymentState as S
from tests.support.agent_bundles import Bundle, build
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    mosquitto_fixture,
    peer_fixture,
    settle,
)
from tests.support.agent_peer import Peer
from tests.support.faulty_device import FaultyDevice
from tests.support.thoroughness import ALL

pytestmark = pytest.mark.thorough

ONE, TWO = build(1), build(2)
NAN = build(2, negative_gives_nan=True)
FAILING = build(2, golden_error=0.5)
NEGATIVE = [-1.0, -1.0, -1.0, -1.0]
_numbers = count(1)


class Scenario(NamedTuple):
    """How a device comes to a phase, and how it ends.

    Attributes:
        order: What is ordered while version 1 answers; None: that the model be removed.
        end: The deployment's end, told after the restart at the latest.
        version: What answers then.
        is_spoiled: Whether the version on trial is asked for what it cannot answer.
        shadow_s: How long it is compared with version 1 before.
    """

    order: Bundle | None
    end: S
    version: int | None
    is_spoiled: bool = False
    shadow_s: int = 0


UPDATE = Scenario(TWO, S.SUCCEEDED, 2)
SCENARIOS = {
    Phase.IDLE: Scenario(None, S.REMOVED, None),
    Phase.DOWNLOADING: UPDATE,
    Phase.VERIFYING: UPDATE,
    Phase.STAGED: UPDATE,
    Phase.TESTING: UPDATE,
    Phase.SHADOW: UPDATE._replace(shadow_s=1),
    Phase.TRIAL: UPDATE,
    Phase.COMMITTED: UPDATE,
    Phase.ROLLED_BACK: Scenario(NAN, S.ROLLED_BACK, 1, is_spoiled=True),
    Phase.REJECTED: Scenario(FAILING, S.FAILED, 1),
}


@pytest.fixture(name="device")
def device_fixture(peer: Peer, tmp_path: Path) -> Iterator[FaultyDevice]:
    """A device that answers with version 1."""
    device = FaultyDevice(peer, tmp_path, f"dev-phase-{next(_numbers)}", trial_s=0.4)
    settle(peer, device, ONE)
    yield device
    device.close()


def test_every_phase_has_a_scenario() -> None:
    assert SCENARIOS.keys() == set(Phase)


@pytest.mark.parametrize("phase", Phase if ALL else (Phase.DOWNLOADING, Phase.TESTING, Phase.TRIAL))
def test_a_power_cut_in_any_phase_loses_nothing(peer: Peer, device: FaultyDevice, phase: Phase) -> None:
    scenario = SCENARIOS[phase]
    if scenario.is_spoiled:
        device.restart_with(trial_s=60.0)  # it ends by what is asked, and by nothing else
        device.wait_version(1)
    device.plan("phase", phase)
    if scenario.order is None:
        peer.assign(device.id)
    else:
        peer.release(scenario.order)
        peer.assign(device.id, (scenario.order, "d-2"), shadow_s=scenario.shadow_s)
    if scenario.is_spoiled:
        peer.wait_report("d-2", S.TRIAL)
        with suppress(OSError):  # the process may be gone before it has answered
            device.infer(NEGATIVE)
    device.wait_killed()
    device.plan("none")
    device.start()
    peer.wait_report("d-2" if scenario.order else "d-1", scenario.end)
    if scenario.version is None:
        peer.assign(device.id, (ONE, "d-3"))
        peer.wait_report("d-3", S.SUCCEEDED)
    device.wait_version(scenario.version or 1)
    assert device.is_running()
