"""``muster`` as people meet it: one clear line for an error, JSON where asked, the right exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import muster_here
from tests.support.hub import HubProcess

Muster = Callable[..., subprocess.CompletedProcess[str]]


def _process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Do the same as `muster_here` in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    return subprocess.run(
        [sys.executable, "-m", "hub", *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def muster(hub: HubProcess) -> Muster:
    """Run a command on the hub."""
    return partial(muster_here, MUSTER_URL=hub.url, MUSTER_TOKEN=hub.token, COLUMNS="200")


def _expect_one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("rollout", "status", "99"),
        ("rollout", "create", "digits", "99"),
        ("model", "show", "digits", "99"),
        ("model", "train", "digits", "--dataset", "nothing"),
        ("model", "train", "digits", "--dataset", "digits", "-p", "hidden"),
        ("device", "show", "nobody"),
        ("dataset", "add", "x", "/no/such/file"),
        ("rollback", "digits", "--to", "99"),
        ("device", "show", ""),
        ("device", "show", "x?limit=1"),
        ("model", "show", "../models", "1"),
        ("rollout", "status", str(10**20)),
        ("rollout", "create", "digits", "1", "--plan", "/no/such/plan"),
    ],
)
def test_an_error_is_one_clear_line(muster: Muster, arguments: tuple[str, ...]) -> None:
    _expect_one_line(muster(*arguments))


def test_a_table_for_a_program_is_as_wide_as_its_names_and_folds_them_where_columns_end(
    hub: HubProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    name = "north-" * 10 + "gate"
    environment = {"MUSTER_URL": hub.url, "MUSTER_TOKEN": hub.token, "TERM": "dumb"}
    dataset = hub.home / "wide.npz"
    np.savez(dataset, features=np.eye(20, 3), labels=np.arange(20) % 2, classes=np.array(["a", "b"]))
    assert muster_here("dataset", "add", name, str(dataset), **environment).returncode == 0
    assert name in _process("dataset", "list", **environment).stdout
    folded = _process("dataset", "list", **environment, COLUMNS="40").stdout
    assert name not in folded
    assert "…" not in folded


def test_a_missing_hub_a_missing_token_and_a_strange_server_are_said(hub: HubProcess) -> None:
    done = muster_here("device", "list", MUSTER_URL="http://127.0.0.1:9", MUSTER_TOKEN="x")
    assert "http://127.0.0.1:9" in _expect_one_line(done)
    assert "MUSTER_TOKEN" in _expect_one_line(muster_here("device", "list", MUSTER_URL=hub.url))
    _expect_one_line(muster_here("device", "list", MUSTER_URL="nonsense://", MUSTER_TOKEN="x"))
    wrong = _expect_one_line(muster_here("device", "list", MUSTER_URL=hub.url, MUSTER_TOKEN="wrong"))
    assert "MUSTER_TOKEN" in wrong
    assert "bearer" not in wrong


def test_a_token_can_come_from_a_file(hub: HubProcess, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(hub.token + "\n")
    done = muster_here(
        "device", "list", "--json", MUSTER_URL=hub.url, MUSTER_TOKEN_FILE=str(tmp_path / "token")
    )
    assert done.returncode == 0
    assert isinstance(json.loads(done.stdout), list)


@pytest.mark.parametrize(
    "arguments",
    [
        ("dataset", "list"),
        ("model", "list"),
        ("model", "show", "digits", "1"),
        ("device", "list"),
        ("rollout", "list"),
        ("fleet", "health"),
        ("fleet", "drift"),
    ],
)
def test_what_prints_a_table_prints_json_too(muster: Muster, arguments: tuple[str, ...]) -> None:
    as_json, as_table = muster(*arguments, "--json"), muster(*arguments)
    json.loads(as_json.stdout)
    assert (as_json.returncode, as_table.returncode) == (0, 0)


def test_a_token_for_a_device_prints_alone(hub: HubProcess) -> None:
    assert len(hub.muster("device", "token").split()) == 1


def test_a_hub_is_not_made_twice_in_one_folder(hub: HubProcess) -> None:
    _expect_one_line(muster_here("hub", "init", "--home", str(hub.home)))


@pytest.mark.parametrize(
    "settings",
    ["http_port = 99999\n", "luck = 7\n", "http_port = \n", "broker = 'carrier-pigeon'\n"],
)
def test_a_hub_with_a_setting_that_cannot_be_used_does_not_start(tmp_path: Path, settings: str) -> None:
    (tmp_path / "hub.toml").write_text(settings)
    assert "hub.toml" in _expect_one_line(muster_here("hub", "serve", "--home", str(tmp_path)))


def test_a_folder_that_is_no_hub_is_not_served(tmp_path: Path) -> None:
    _expect_one_line(muster_here("hub", "serve", "--home", str(tmp_path)))
    _expect_one_line(muster_here("hub", "token", "ana", "--home", str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_the_admin_token_is_printed_once_and_the_folder_is_private(tmp_path: Path) -> None:
    done = _process("hub", "init", "--home", str(tmp_path / "home"))
    assert done.returncode == 0
    assert done.stdout.split()[-1].startswith("muster_")
    assert "MUSTER_URL" not in done.stdout
    assert (tmp_path / "home").stat().st_mode & 0o077 == 0
    for key in (tmp_path / "home" / "keys").iterdir():
        assert key.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("plan", ['{"stages": NaN}', '{"deployment_timeout_s": 1e999}', "null", "[]", "{"])
def test_a_plan_that_is_no_json_object_is_refused(muster: Muster, tmp_path: Path, plan: str) -> None:
    (tmp_path / "plan.json").write_text(plan)
    _expect_one_line(muster("rollout", "create", "digits", "1", "--plan", str(tmp_path / "plan.json")))


def test_a_second_hub_does_not_run_on_the_folder(hub: HubProcess) -> None:
    assert "[conflict]" in _expect_one_line(muster_here("hub", "serve", "--home", str(hub.home)))


def test_a_hub_that_cannot_listen_says_so(hub: HubProcess, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    port = hub.url.rpartition(":")[2]
    made = muster_here(
        "hub", "init", "--home", home, "--http-port", port, "--mqtt-port", "0", "--broker", "embedded"
    )
    assert made.returncode == 0
    assert f"MUSTER_URL=http://127.0.0.1:{port}" in made.stdout.split()
    done = _process("hub", "serve", "--home", home)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert port in done.stderr.splitlines()[-1]


def test_a_hub_is_not_made_where_one_may_not_write() -> None:
    _expect_one_line(muster_here("hub", "init", "--home", "/proc/no-such-folder/hub"))
