"""When a version may be swapped in, with real agents: hub, people, windows and a program have their say."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from agent.status import read_status
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.maintenance import DAYS, Maintenance, Mode
from fleet.protocol.wishes import Wishes
from tests.support.agent_bundles import build
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
    settle,
)
from tests.support.agent_peer import Peer
from tests.support.processes import is_alive
from tests.support.waiting import eventually

ONE, TWO, THREE = build(1), build(2), build(3)
HELD = Wishes(updates_held=True)


def agent(*arguments: str) -> str:
    """Run a ``muster-agent`` command and return what it printed."""
    command = [sys.executable, "-m", "agent", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def wait_reason(peer: Peer, beginning: str) -> str:
    """Return why the device's staged version waits, when the hub is told a reason that begins so."""

    def told() -> str | None:
        reasons = [m.waiting_for for m in peer.states[-1].models] if peer.states else []
        return next((reason for reason in reasons if reason and reason.startswith(beginning)), None)

    return eventually(told, f"the hub is told: {beginning}")


def script(folder: Path, text: str) -> list[str]:
    """Write a program of the device's and return its command."""
    path = folder / "ready.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return [str(path)]


def states(peer: Peer, deployment_id: str) -> list[S]:
    """Return the states that a deployment reached, in their order."""
    return [report.state for report in peer.reports(deployment_id)]


def test_the_first_version_waits_for_a_program_that_says_no_and_then_yes(
    peer: Peer, make_device: MakeDevice, tmp_path: Path
) -> None:
    parked = tmp_path / "parked"
    command = script(tmp_path, f'[ -e {parked} ] && exit 0\necho "The vehicle moves."\necho secret; exit 3')
    device = make_device(readiness_command=command, readiness_interval_s=0.2)
    peer.release(ONE)
    device.start()
    peer.assign(device.id, (ONE, "d-1"))
    assert wait_reason(peer, "The vehicle") == "The vehicle moves."
    eventually(lambda: states(peer, "d-1") == [S.DOWNLOADING, S.VERIFYING, S.STAGED])
    (model,) = read_status(device.state).models
    assert (model.phase, model.waiting_for) == ("STAGED", "The vehicle moves.")
    assert "waiting: The vehicle moves." in agent("status", "--state", str(device.state))
    parked.touch()
    peer.wait_report("d-1", S.SUCCEEDED)
    eventually(lambda: peer.states[-1].models[0].waiting_for is None)
    eventually(lambda: read_status(device.state).models[0].waiting_for is None)


def test_after_a_shadow_all_are_asked_once_more(peer: Peer, make_device: MakeDevice, tmp_path: Path) -> None:
    parked, departs = tmp_path / "parked", tmp_path / "departs"
    drives_off = f"[ -e {departs} ] && mv {departs} {tmp_path / 'departed'} && rm {parked}"
    command = script(
        tmp_path, f'[ -e {parked} ] && {{ {drives_off}; exit 0; }}\necho "The vehicle moves."\nexit 3'
    )
    device = make_device(readiness_command=command, readiness_interval_s=0.2)
    parked.touch()
    settle(peer, device, ONE)
    peer.release(TWO)
    departs.touch()  # it says yes once more, before the shadow
    peer.assign(device.id, (TWO, "d-2"), shadow_s=1)
    peer.wait_report("d-2", S.SHADOW)
    wait_reason(peer, "The vehicle moves.")
    assert (peer.states[-1].models[0].phase, device.answering_version()) == ("SHADOW", "1")
    parked.touch()
    peer.wait_report("d-2", S.SUCCEEDED)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 7", "The readiness command ended with exit code 7."),
        ("kill -9 $$", "The readiness command ended with exit code -9."),
        ("sleep 600 & echo $! >> children; wait", "The readiness command did not end within 0.5 s."),
        ("yes | head -c 1000000; exit 0", "The readiness command did not end within 0.5 s."),
    ],
)
def test_whatever_is_no_clear_yes_is_no_and_leaves_no_process(
    peer: Peer, make_device: MakeDevice, tmp_path: Path, text: str, reason: str
) -> None:
    command = script(tmp_path, f"cd {tmp_path}\n{text}")
    device = make_device(readiness_command=command, readiness_interval_s=0.2, readiness_timeout_s=0.5)
    peer.release(ONE)
    device.start()
    peer.assign(device.id, (ONE, "d-1"))
    assert wait_reason(peer, reason) == reason  # a busy machine may be too slow for it at first
    if "children" in text:
        first, *_ = (tmp_path / "children").read_text().split()  # it is asked again, and again
        assert not is_alive(int(first))
    assert S.TRIAL not in states(peer, "d-1")


def test_a_program_that_is_not_there_is_no(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device(readiness_command=["/no/such/program"], readiness_interval_s=0.2)
    peer.release(ONE)
    device.start()
    peer.assign(device.id, (ONE, "d-1"))
    assert "/no/such/program" in wait_reason(peer, "The readiness command")


def test_what_a_program_leaves_behind_is_ended_and_the_version_swapped_in(
    peer: Peer, make_device: MakeDevice, tmp_path: Path
) -> None:
    child = tmp_path / "child"
    command = script(tmp_path, f"sleep 600 & echo $! > {child}; exit 0")
    device = make_device(readiness_command=command)
    settle(peer, device, ONE)
    eventually(lambda: not is_alive(int(child.read_text())), "what it left behind is ended")


def test_the_hubs_hold_outlives_crashes_and_ends_by_its_release(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device()
    settle(peer, device, ONE)
    peer.release(TWO)
    peer.assign(device.id, (TWO, "d-2"), wishes=HELD)
    wait_reason(peer, "Updates are held by the hub.")
    for _ in range(4):  # one more than a trial outlives
        device.kill()
        peer.states.clear()
        device.start()
        wait_reason(peer, "Updates are held by the hub.")
    device.wait_version(1)
    peer.assign(device.id, (TWO, "d-2"))
    peer.wait_report("d-2", S.SUCCEEDED)
    assert states(peer, "d-2") == [S.DOWNLOADING, S.VERIFYING, S.STAGED, S.TRIAL, S.SUCCEEDED]


def test_a_hold_at_the_device_outlives_a_crash_and_a_newer_order_takes_its_place(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device()
    settle(peer, device, ONE)
    peer.release(TWO, THREE)
    agent("hold", "--state", str(device.state), "--reason", "on the road")
    peer.assign(device.id, (TWO, "d-2"))
    assert wait_reason(peer, "Updates are held") == "Updates are held on the device: on the road."
    device.kill()
    peer.states.clear()
    device.start()
    wait_reason(peer, "Updates are held on the device")
    peer.assign(device.id, (THREE, "d-3"))
    assert peer.wait_end("d-2").state is S.CANCELED
    peer.wait_report("d-3", S.STAGED)
    assert read_status(device.state).held == "Updates are held on the device: on the road."
    agent("release", "--state", str(device.state))
    peer.wait_report("d-3", S.SUCCEEDED)
    assert device.answering_version() == "3"


def test_outside_every_maintenance_window_a_version_waits(peer: Peer, make_device: MakeDevice) -> None:
    tomorrow = datetime.now() + timedelta(days=1)  # noqa: DTZ005 - the clock on the wall
    device = make_device(maintenance_windows=[f"{DAYS[tomorrow.weekday()]} 12:00-12:30"])
    peer.release(ONE)
    device.start()
    peer.assign(device.id, (ONE, "d-1"))
    assert f"{tomorrow:%Y-%m-%d} at 12:00" in wait_reason(peer, "The next maintenance window opens on")
    device.stop()
    settings = device.state / "agent.toml"
    settings.write_text(settings.read_text().replace('["', '["mon-sun 00:00-24:00", "'))
    device.start()
    peer.wait_report("d-1", S.SUCCEEDED)


def test_a_window_of_the_order_is_on_the_devices_own_clock_and_opens_none_of_its_own(
    peer: Peer, make_device: MakeDevice
) -> None:
    tomorrow = datetime.now() + timedelta(days=1)  # noqa: DTZ005 - the clock on the wall
    day = DAYS[tomorrow.weekday()]
    device = make_device(maintenance_windows=[f"{day} 13:00-13:30"])
    peer.release(ONE)
    device.start()
    peer.assign(device.id, (ONE, "d-1"), maintenance=Maintenance(DAYS, "00:00", "24:00"))
    assert "13:00" in wait_reason(peer, "The next maintenance window opens on")
    device.stop()
    settings = device.state / "agent.toml"
    settings.write_text(settings.read_text().replace('["', '["mon-sun 00:00-24:00", "'))
    device.start()
    peer.wait_report("d-1", S.SUCCEEDED)
    peer.release(TWO)
    peer.assign(device.id, (TWO, "d-2"), maintenance=Maintenance((day,), "12:00", "12:30"))
    reason = wait_reason(peer, "The rollout's next maintenance window opens on")
    assert f"{tomorrow:%Y-%m-%d} at 12:00" in reason
    device.kill()
    peer.states.clear()
    device.start()
    wait_reason(peer, "The rollout's next maintenance window")
    peer.assign(device.id, (TWO, "d-3"), maintenance=Maintenance(DAYS, "00:00", "24:00"))
    peer.wait_report("d-3", S.SUCCEEDED)


def test_a_forced_order_asks_neither_windows_nor_program_but_the_hold_at_the_device(
    peer: Peer, make_device: MakeDevice, tmp_path: Path
) -> None:
    tomorrow = datetime.now() + timedelta(days=1)  # noqa: DTZ005 - the clock on the wall
    window = f"{DAYS[tomorrow.weekday()]} 12:00-12:30"
    device = make_device(maintenance_windows=[window], readiness_command=script(tmp_path, "exit 1"))
    agent("hold", "--state", str(device.state), "--reason", "on the road")
    peer.release(ONE)
    device.start()
    peer.assign(device.id, (ONE, "d-1"), mode=Mode.FORCED)
    wait_reason(peer, "Updates are held on the device")
    agent("release", "--state", str(device.state))
    peer.wait_report("d-1", S.SUCCEEDED)


def test_the_devices_owner_may_forbid_that_updates_are_forced(
    peer: Peer, make_device: MakeDevice, tmp_path: Path
) -> None:
    command = script(tmp_path, 'echo "The vehicle moves."; exit 1')
    device = make_device(forced_updates=False, readiness_command=command, readiness_interval_s=0.2)
    peer.release(ONE)
    device.start()
    peer.assign(device.id, (ONE, "d-1"), mode=Mode.FORCED)
    wait_reason(peer, "The vehicle moves.")
    assert S.TRIAL not in states(peer, "d-1")


def test_while_the_last_assignment_cannot_be_verified_nothing_is_swapped_in(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device()
    peer.release(ONE)
    device.start()
    peer.assign(device.id, (ONE, "d-1"), wishes=HELD)
    wait_reason(peer, "Updates are held by the hub.")
    device.stop()
    (device.state / "trust" / "assignment.accepted").write_bytes(b"damaged")
    peer.states.clear()
    device.start()
    wait_reason(peer, "The last assignment could not be verified")


def test_holding_needs_an_enrolled_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agent", "hold", "--state", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])
    assert "invalid_configuration" in done.stderr
