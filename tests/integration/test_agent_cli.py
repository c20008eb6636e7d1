"""``muster-agent`` as people use it: enrolment, status, errors of one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agent.identity import read_identity
from fleet.protocol.deployment import DeploymentState as S
from tests.support.agent_bundles import build
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer

SOURCE = str(Path(__file__).parents[2])


def agent(*arguments: str, token: str | None = None, text: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    environment.pop("MUSTER_ENROLMENT_TOKEN", None)
    if token is not None:
        environment["MUSTER_ENROLMENT_TOKEN"] = token
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "agent", *arguments],
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], code: str) -> None:
    """Check for one clear line and nothing else."""
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(f"[{code}]")


def test_a_token_comes_from_environment_file_or_input(peer: Peer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(peer.token + "\n", "utf-8")
    common = ("enroll", "--hub", peer.url, "--attribute", "site=lyon", "--setting", "trial_s=2")
    ways = {
        "env": agent(*common, "--state", str(tmp_path / "env"), "--id", "cli-env", token=peer.token),
        "file": agent(
            *common, "--state", str(tmp_path / "file"), "--id", "cli-file", "--token-file", str(file)
        ),
        "input": agent(*common, "--state", str(tmp_path / "input"), "--id", "cli-input", text=peer.token),
    }
    for name, done in ways.items():
        assert (done.returncode, done.stderr) == (0, "")
        assert peer.token not in done.stdout
        identity = read_identity(tmp_path / name)
        assert (identity.device_id, identity.broker.host) == (f"cli-{name}", "127.0.0.1")
        assert identity.root == peer.repository.root
        assert (tmp_path / name / "identity.json").stat().st_mode & 0o777 == 0o600
        assert identity.broker.password not in (tmp_path / name / "agent.toml").read_text("utf-8")
        assert identity.broker.password not in repr(identity)


def test_enrolment_is_refused_in_one_line_and_leaves_nothing(peer: Peer, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    common = ("enroll", "--hub", peer.url, "--state", state, "--id", "cli-refused")
    refused(agent(*common, token="nonsense"), "invalid_input")
    refused(agent(*common, "--setting", "no_such=1", token=peer.token), "invalid_configuration")
    refused(agent(*common[:-1], "Not A Name", token=peer.token), "invalid_name")
    refused(agent(*common, "--token-file", str(tmp_path / "none")), "invalid_configuration")
    forged = peer.token.partition(".")[0] + "." + "0" * 64
    refused(agent(*common, token=forged), "digest_mismatch")
    other = ("enroll", "--state", state, "--id", "cli-refused", "--hub")
    refused(agent(*other, "http://127.0.0.1:1", token=peer.token), "hub_unavailable")
    refused(agent(*other, "ftp://hub", token=peer.token), "invalid_configuration")
    refused(agent(*other, f"{peer.url}/elsewhere", token=peer.token), "invalid_configuration")
    assert not (tmp_path / "state").exists() or list((tmp_path / "state").iterdir()) == []


@pytest.mark.parametrize("command", ["run", "status"])
def test_a_folder_that_is_not_enrolled_is_refused_and_left_alone(tmp_path: Path, command: str) -> None:
    refused(agent(command, "--state", str(tmp_path)), "invalid_configuration")
    assert list(tmp_path.iterdir()) == []


def test_wrong_usage_is_exit_code_two() -> None:
    assert agent("run").returncode == 2
    assert agent().returncode == 2
    assert agent("enroll", "--token", "secret").returncode == 2


def test_a_running_device_tells_its_status_and_is_not_run_or_enrolled_twice(
    peer: Peer, make_device: MakeDevice
) -> None:
    bundle = build(1)
    peer.release(bundle)
    device = make_device()
    device.start()
    peer.assign(device.id, (bundle, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    peer.wait_settled()
    state = str(device.state)
    shown = msgspec.json.decode(agent("status", "--state", state, "--json").stdout)
    assert shown["running"]
    assert (shown["device_id"], shown["sequence"]) == (device.id, 1)
    assert [(m["model"], m["version"], m["phase"]) for m in shown["models"]] == [("digits", 1, "COMMITTED")]
    assert "version 1 (onnx-fp32), COMMITTED on cpu" in agent("status", "--state", state).stdout
    refused(agent("run", "--state", state), "conflict")
    again = ("enroll", "--hub", peer.url, "--state", state, "--id", "another")
    refused(agent(*again, token=peer.token), "conflict")
    device.stop()
    assert not msgspec.json.decode(agent("status", "--state", state, "--json").stdout)["running"]


def test_damaged_settings_and_identity_are_one_line(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device()
    settings = device.state / "agent.toml"
    good = settings.read_text("utf-8")
    settings.write_text("heartbeat_interval_s = 'often'", "utf-8")
    refused(agent("run", "--state", str(device.state)), "invalid_configuration")
    settings.write_text(good, "utf-8")
    (device.state / "identity.json").write_bytes(b"{")
    refused(agent("run", "--state", str(device.state)), "storage_corrupt")
