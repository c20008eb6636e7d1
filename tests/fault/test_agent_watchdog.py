"""A version that goes wrong during its trial, each in its own way, while there is no broker.

The models are real: what is slow computes, what takes memory holds it, what hangs never ends, and what is
damaged in memory is damaged there. Each passes its self-test. The device goes back by itself, and tells why
when the broker is there again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fleet.protocol.deployment import DeploymentState as S
from tests.support.agent_broker import OpenBroker
from tests.support.agent_bundles import Bundle, build, build_costly, build_mapped
from tests.support.agent_device import SAMPLE, Device
from tests.support.agent_fixtures import open_broker_fixture  # noqa: F401 - pytest finds fixtures by name
from tests.support.agent_models import SHIFTS
from tests.support.agent_peer import Peer
from tests.support.waiting import eventually

MIB = 1024**2
ONE = build(1)
BRIGHT, DAZZLING, BLINDING = ([brightness, 0.0, 0.0, 0.0] for brightness in (2.0, 65.0, 1e6))
SHIFT = np.array([0.5, -0.5, 0.25], dtype=np.float32)


class Fault(NamedTuple):
    """How a version goes wrong.

    Attributes:
        bundle: The version.
        provoke: Makes it go wrong, once it is on trial.
        code: The cause that must be told.
        settings: Limits that make the test quick.
    """

    bundle: Bundle
    provoke: Callable[[Device], None]
    code: str
    settings: dict[str, Any]


def ask_often(device: Device) -> None:
    """Ask as often as it takes to call a version slow."""
    for _ in range(30):
        device.infer(BRIGHT)


def ask_once(device: Device, sample: list[float]) -> None:
    """Ask for what the version cannot do well."""
    device.infer(sample)


def damage_memory(device: Device) -> None:
    """Write into the file that the runtime has mapped, in place."""
    path = next((device.state / "models").rglob("model.ort"))
    shifts = np.tile(SHIFT, (SHIFTS, 1)).tobytes()
    place = path.read_bytes().index(shifts)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(np.tile(-9 * SHIFT, (SHIFTS, 1)).tobytes())


FAULTS = {
    "slow": Fault(build_costly(2, rounds=20_000), ask_often, "trial_too_slow", {}),
    "large": Fault(
        build_costly(2, rounds=5_000, numbers=MIB // 4),  # 64 MiB, held for a third of a second and more
        lambda device: ask_once(device, DAZZLING),
        "trial_memory_exceeded",
        {"trial_memory_limit_bytes": 32 * MIB},
    ),
    "hanging": Fault(
        build_costly(2, rounds=1_000_000),
        lambda device: ask_once(device, BLINDING),
        "trial_hung",
        {"inference_timeout_s": 2.0},
    ),
    "damaged in memory": Fault(
        build_mapped(2, SHIFT), damage_memory, "trial_golden_failed", {"trial_golden_interval_s": 0.1}
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_version_that_goes_wrong_is_rolled_back_offline_and_its_cause_told_later(
    open_broker: OpenBroker, tmp_path: Path, name: str
) -> None:
    fault = FAULTS[name]
    peer = Peer(open_broker)
    device = Device(peer, tmp_path, "dev-watched")
    try:
        peer.release(ONE, fault.bundle)
        device.start()
        peer.assign(device.id, (ONE, "d-1"))
        peer.wait_report("d-1", S.SUCCEEDED)
        device.restart_with(trial_s=60.0, **fault.settings)
        device.wait_version(1)
        ask_often(device)
        peer.assign(device.id, (fault.bundle, "d-2"))
        peer.wait_report("d-2", S.TRIAL)
        assert device.answering_version() == "2"
        open_broker.stop()
        fault.provoke(device)
        device.wait_version(1)
        assert device.infer(SAMPLE).status == 200
        assert peer.reports("d-2")[-1].state is S.TRIAL
        open_broker.start()
        end = peer.wait_end("d-2")
        assert (end.state, end.cause and end.cause.code) == (S.ROLLED_BACK, fault.code)
        assert device.is_running()
    finally:
        device.close()
        peer.close()


def test_a_version_that_was_damaged_in_memory_is_not_committed_at_the_end_of_its_trial(
    open_broker: OpenBroker, tmp_path: Path
) -> None:
    """No interval ends during the trial: only the last look finds it."""
    peer = Peer(open_broker)
    device = Device(peer, tmp_path, "dev-last-look")
    bundle = build_mapped(2, SHIFT)
    try:
        peer.release(ONE, bundle)
        device.start()
        peer.assign(device.id, (ONE, "d-1"))
        peer.wait_report("d-1", S.SUCCEEDED)
        device.restart_with(trial_minimum_predictions=5)
        peer.assign(device.id, (bundle, "d-2"))
        peer.wait_report("d-2", S.TRIAL)
        damage_memory(device)
        eventually(lambda: device.infer(SAMPLE) and any(r.state.is_terminal for r in peer.reports("d-2")))
        end = peer.wait_end("d-2")
        assert (end.state, end.cause and end.cause.code) == (S.ROLLED_BACK, "trial_golden_failed")
        device.wait_version(1)
    finally:
        device.close()
        peer.close()
