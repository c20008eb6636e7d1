"""``muster-agent install`` into the root folder of an image: what stands there then, and what is refused."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.settings import read_settings
from agent.system.install import ACCOUNT, UNIT
from tests.support.agent_fixtures import mosquitto_fixture, peer_fixture  # noqa: F401 - pytest finds fixtures
from tests.support.agent_peer import Peer
from tests.support.systemd import need_systemd

SOURCE = str(Path(__file__).parents[2])
COMMAND = "/opt/muster/bin/muster-agent"
NUMBER = 987
PASSWD = f"root:x:0:0:root:/root:/bin/sh\n{ACCOUNT}:x:{NUMBER}:{NUMBER}::/:/usr/sbin/nologin\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="Only root may give files to another account.")


@pytest.fixture(name="image")
def image_fixture(tmp_path: Path) -> Path:
    """The root folder of an image that has the command and, as after an earlier try, the account."""
    image = tmp_path / "image"
    command = image / COMMAND.lstrip("/")
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    (image / "etc").mkdir()
    (image / "etc" / "passwd").write_text(PASSWD)
    return image


def agent(*arguments: str, account: int | None = None, token: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "agent", *arguments],
        env={**os.environ, "PYTHONPATH": SOURCE, "MUSTER_ENROLMENT_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=account,
    )


def install(image: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return agent("install", "--root", str(image), "--executable", COMMAND, *more)


def uninstall(image: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return agent("uninstall", "--root", str(image), *more)


def tree(image: Path) -> dict[str, tuple[str, int, int, bytes]]:
    """Return mode, owner, time of change and contents of everything in a folder, by name."""
    found = {}
    for path in sorted(image.rglob("*")):
        about = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(about.st_mode) else b""
        name = str(path.relative_to(image))
        found[name] = (stat.filemode(about.st_mode), about.st_uid, about.st_mtime_ns, data)
    return found


def refused(done: subprocess.CompletedProcess[str], code: str) -> None:
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(f"[{code}]")


@needs_root
def test_everything_has_its_place_mode_and_owner(image: Path) -> None:
    done = install(image)
    assert (done.returncode, done.stderr) == (0, "")
    found = tree(image)
    owners = {name: (mode, owner) for name, (mode, owner, _, _) in found.items()}
    assert owners[f"etc/systemd/system/{UNIT}"] == ("-rw-r--r--", 0)
    assert owners["etc/sysusers.d/muster-agent.conf"] == ("-rw-r--r--", 0)
    assert owners["var/lib/muster-agent"] == ("drwx------", NUMBER)
    assert owners["var/lib/muster-agent/agent.toml"] == ("-rw-------", NUMBER)
    assert not [name for name in found if name.endswith(".new")]
    unit = found[f"etc/systemd/system/{UNIT}"][3].decode()
    assert f"\nExecStart={COMMAND} run --state %S/muster-agent\n" in unit
    assert "@" not in unit.replace("@system-service", "").replace("@privileged", "").replace("@resources", "")
    settings = read_settings(image / "var/lib/muster-agent")
    assert (settings.socket_path, settings.socket_access) == ("/run/muster-agent/agent.sock", "group")


@needs_root
def test_a_second_installation_changes_nothing_and_mends_what_was_changed(image: Path) -> None:
    install(image)
    first = tree(image)
    again = install(image)
    assert again.returncode == 0
    assert tree(image) == first
    unit = image / "etc/systemd/system" / UNIT
    unit.write_text("[Service]\nExecStart=/bin/false\n")
    (image / "var/lib/muster-agent").chmod(0o777)
    (image / "var/lib/muster-agent/agent.toml").write_text("trial_s = 5\n")
    (image / "var/lib/.muster-agent.new").mkdir()  # as if the power had gone just then
    assert install(image).returncode == 0
    assert unit.read_bytes() == first[f"etc/systemd/system/{UNIT}"][3]
    assert stat.S_IMODE((image / "var/lib/muster-agent").stat().st_mode) == 0o700
    assert read_settings(image / "var/lib/muster-agent").trial_s == 5.0, "a person's settings were lost"


@needs_root
def test_what_an_interrupted_installation_left_is_replaced(image: Path) -> None:
    left = image / "var/lib/.muster-agent.new"
    left.mkdir(parents=True)
    (left / "agent.toml").write_text("socket_pa")
    (image / "etc/systemd/system").mkdir(parents=True)
    (image / "etc/systemd/system" / f".{UNIT}.new").write_text("[Unit")
    assert install(image).returncode == 0
    assert not [name for name in tree(image) if name.endswith(".new")]
    assert read_settings(image / "var/lib/muster-agent").socket_access == "group"


def test_a_dry_run_tells_and_does_nothing(image: Path) -> None:
    before = tree(image)
    done = install(image, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.startswith("would set") for line in done.stdout.splitlines()].count(True) == 3
    assert uninstall(image, "--purge", "--dry-run").returncode == 0
    assert tree(image) == before


def test_a_command_that_the_service_could_not_start_is_refused(image: Path) -> None:
    before = tree(image)
    common = ("install", "--dry-run", "--root", str(image), "--executable")
    for hidden in (
        "/home/me/muster-agent",
        "/root/muster-agent",
        "/tmp/muster-agent",
        "relative",
        "/a b",
        "/%h",
    ):
        refused(agent(*common, hidden), "invalid_configuration")
    refused(agent(*common, "/opt/none"), "not_found")
    refused(agent(*common, "/opt/muster"), "not_found")
    refused(
        agent("install", "--dry-run", "--root", str(image / "none"), "--executable", COMMAND), "not_found"
    )
    assert tree(image) == before


@needs_root
def test_a_place_that_is_taken_is_refused_in_one_line(image: Path, tmp_path: Path) -> None:
    state = image / "var/lib/muster-agent"
    state.mkdir(parents=True)  # root's
    refused(install(image), "conflict")
    state.rmdir()
    state.symlink_to(tmp_path)
    refused(install(image), "conflict")
    refused(uninstall(image, "--purge"), "conflict")
    assert tmp_path.exists()
    state.unlink()
    (image / "etc/systemd").write_text("no folder")
    refused(install(image), "storage_error")
    (image / "etc/systemd").unlink()
    (image / "var").rename(tmp_path / "var")
    (image / "var").symlink_to(tmp_path / "var")
    refused(install(image), "invalid_configuration")
    assert (image / "var").resolve() == tmp_path / "var"
    (image / "var").unlink()
    assert install(image).returncode == 0, "it goes on where it was refused"


@needs_root
def test_the_state_stays_unless_it_is_purged(image: Path) -> None:
    install(image)
    state = image / "var/lib/muster-agent"
    assert uninstall(image).returncode == 0
    assert not (image / "etc/systemd/system" / UNIT).exists()
    assert not (image / "etc/sysusers.d/muster-agent.conf").exists()
    assert (state / "agent.toml").exists()
    assert uninstall(image).returncode == 0, "nothing is left to do, and that is no error"
    with (state / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(uninstall(image, "--purge"), "conflict")
        assert (state / "agent.toml").exists()
    assert uninstall(image, "--purge").returncode == 0
    assert not state.exists()
    assert (image / "etc/passwd").read_text() == PASSWD


@needs_root
def test_nobody_but_root_installs() -> None:
    """Another account may not be able to read this code: it is read first, and then root is given up."""
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import agent.system.install, agent.cli;"
        "os.seteuid(65534); raise SystemExit(agent.cli.main(['install', '--executable', '/bin/true']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, SOURCE], capture_output=True, text=True, timeout=60, check=False
    )
    refused(done, "not_permitted")


@needs_root
def test_the_account_is_made_without_a_login(image: Path) -> None:
    need_systemd()
    (image / "etc/passwd").unlink()
    assert install(image).returncode == 0
    (line,) = (image / "etc/passwd").read_text().splitlines()
    fields = line.split(":")
    assert (fields[0], fields[6]) == (ACCOUNT, "/usr/sbin/nologin")
    assert 0 < int(fields[2]) < 1000
    assert (image / "var/lib/muster-agent").stat().st_uid == int(fields[2])
    first = tree(image)
    assert install(image).returncode == 0
    assert tree(image) == first


def test_enrolment_keeps_the_settings_that_were_installed(peer: Peer, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "agent.toml").write_text('socket_access = "group"\ntrial_s = 5\n')
    common = ("enroll", "--hub", peer.url, "--state", str(state), "--id", "installed-1")
    done = agent(*common, "--setting", "trial_s=7", token=peer.token)
    assert (done.returncode, done.stderr) == (0, "")
    settings = read_settings(state)
    assert (settings.socket_access, settings.trial_s) == ("group", 7.0)
