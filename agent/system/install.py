"""``muster-agent install`` and ``uninstall``: account, folders, settings and unit of the service.

::

    /etc/sysusers.d/muster-agent.conf           root 0644    the account, for systemd-sysusers
    /etc/systemd/system/muster-agent.service    root 0644    the unit
    /var/lib/muster-agent/                      account 0700 the state
    /var/lib/muster-agent/agent.toml            account 0600 the settings

Each step looks first whether it is done, so a second installation changes nothing, and one that was
interrupted is finished by the next. Files are written whole (`agent.durable`). The state folder belongs to an
account that root does not trust: it is prepared beside its place and then renamed into it, and root never
follows a path inside it again.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from agent import durable
from agent.lock import check_nobody_runs
from agent.settings import write_settings
from fleet.protocol.errors import Conflict, InvalidConfiguration, MusterError, NotFound, NotPermitted

ACCOUNT = "muster-agent"
UNIT = "muster-agent.service"
UNIT_PATH = Path("etc/systemd/system") / UNIT
ACCOUNT_PATH = Path("etc/sysusers.d/muster-agent.conf")
STATE_PATH = Path("var/lib/muster-agent")
STATE_MODE = 0o700
SETTINGS = {"socket_path": "/run/muster-agent/agent.sock", "socket_access": "group"}
SYSUSERS_TIMEOUT_S = 60.0
SYSTEMCTL_TIMEOUT_S = 30.0
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - none is written to
"""What the unit's ProtectHome and PrivateTmp hide: a program there could not be started."""

Say = Callable[[str], None]


class Step(NamedTuple):
    """One thing that an installation brings about.

    Attributes:
        what: It, for people.
        is_done: Tells whether it stands already.
        do: Brings it about.
    """

    what: str
    is_done: Callable[[], bool]
    do: Callable[[], None]


def install(root: Path, executable: Path, *, dry_run: bool, say: Say) -> None:
    """Set the service up.

    Args:
        root: The system's root folder: ``/``, or that of an image.
        executable: The ``muster-agent`` command as the unit will call it, inside ``root``.
        dry_run: Only tell what would be done.
        say: Told of each step.

    Raises:
        NotPermitted: Not called by root.
        InvalidConfiguration: The service could not start that command.
        NotFound: The command, or systemd-sysusers, is not there.
        Conflict: The state folder is no folder of the agent's account.
        StorageError: Something cannot be written.
    """
    root = root.resolve()
    _check_rights(dry_run=dry_run)
    command = _checked_command(root, executable)
    unit = _packaged(UNIT).replace(b"@EXECUTABLE@", command.encode())
    account_path, unit_path = _inside(root, ACCOUNT_PATH), _inside(root, UNIT_PATH)
    _carry_out(
        [
            _file_step(account_path, _packaged("sysusers.conf")),
            Step(
                f"account {ACCOUNT}",
                lambda: account_ids(root) is not None,
                lambda: _make_account(root, account_path),
            ),
            _state_step(root),
            _file_step(unit_path, unit, then=lambda: _systemctl(root, "daemon-reload")),
        ],
        dry_run=dry_run,
        say=say,
    )


def uninstall(root: Path, *, purge: bool, dry_run: bool, say: Say) -> None:
    """Remove what `install` set up; the account stays, so that its number is not given to another.

    Args:
        root: The system's root folder.
        purge: Remove the state too: models, telemetry that was not sent, the device's identity.
        dry_run: Only tell what would be done.
        say: Told of each step.

    Raises:
        NotPermitted: Not called by root.
        Conflict: An agent still runs on the state that is to be removed.
        StorageError: Something cannot be removed.
    """
    root = root.resolve()
    _check_rights(dry_run=dry_run)
    account_path, unit_path, state = (_inside(root, p) for p in (ACCOUNT_PATH, UNIT_PATH, STATE_PATH))

    def remove_unit() -> None:
        _systemctl(root, "disable", "--now", UNIT)
        durable.remove_file(unit_path)
        _systemctl(root, "daemon-reload")

    steps = [
        Step(f"no {unit_path}", lambda: not unit_path.exists(), remove_unit),
        Step(
            f"no {account_path}", lambda: not account_path.exists(), lambda: durable.remove_file(account_path)
        ),
    ]
    if purge:
        steps.append(Step(f"no {state}", lambda: not os.path.lexists(state), lambda: _remove_state(state)))
    _carry_out(steps, dry_run=dry_run, say=say)
    if not purge and state.exists():
        say(f"kept       {state}")


def account_ids(root: Path) -> tuple[int, int] | None:
    """Return user and group number of the account in a root folder; None if there is no such account."""
    path = _inside(root, Path("etc/passwd"))
    with durable.storage_errors(path):
        lines = path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []
    for fields in (line.split(":") for line in lines):
        if fields[0] == ACCOUNT and len(fields) == 7 and fields[2].isdigit() and fields[3].isdigit():
            return int(fields[2]), int(fields[3])
    return None


def _carry_out(steps: list[Step], *, dry_run: bool, say: Say) -> None:
    for step in steps:
        if step.is_done():
            say(f"unchanged  {step.what}")
        elif dry_run:
            say(f"would set  {step.what}")
        else:
            step.do()
            say(f"set        {step.what}")


def _file_step(path: Path, data: bytes, then: Callable[[], None] | None = None) -> Step:
    """Return the step that makes a file of root's what it should be."""

    def is_done() -> bool:
        with durable.storage_errors(path):
            if not path.exists():
                return False
            found = path.stat()
            is_roots = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 0, durable.PUBLIC)
            return is_roots and path.read_bytes() == data

    def do() -> None:
        durable.make_folder(path.parent)
        with durable.storage_errors(path):
            path.unlink(missing_ok=True)  # it may be a link to elsewhere
        durable.write_file(path, data)
        with durable.storage_errors(path):
            path.chmod(durable.PUBLIC)
        if then is not None:
            then()

    return Step(str(path), is_done, do)


def _state_step(root: Path) -> Step:
    """Return the step that makes the state folder, with its first settings, the account's own."""
    path = _inside(root, STATE_PATH)

    def is_done() -> bool:
        with durable.storage_errors(path):
            if not os.path.lexists(path):
                return False
            found, owner = path.lstat(), account_ids(root)
        if not stat.S_ISDIR(found.st_mode) or (owner is not None and found.st_uid != owner[0]):
            raise Conflict(
                f"{path} is there and is no folder of the account {ACCOUNT}.",
                remedy=f"Move it away, or give it to the account: chown -R {ACCOUNT}: {path}",
            )
        return stat.S_IMODE(found.st_mode) == STATE_MODE

    def do() -> None:
        with durable.storage_errors(path):
            if path.exists():
                path.chmod(STATE_MODE)
                return
        _make_state(root, path)

    return Step(f"{path}, mode {STATE_MODE:o}, of {ACCOUNT}", is_done, do)


def _make_state(root: Path, path: Path) -> None:
    owner = account_ids(root)
    assert owner is not None  # the step before has seen to it
    durable.make_folder(path.parent)
    new = path.with_name(f".{path.name}.new")
    durable.remove_tree(new)
    try:
        with durable.storage_errors(path):
            new.mkdir(mode=STATE_MODE)
            write_settings(new, SETTINGS)
            for each in (*new.iterdir(), new):
                os.chown(each, *owner, follow_symlinks=False)
            durable.sync_folder(new)
            new.rename(path)
            durable.sync_folder(path.parent)
    except MusterError:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _remove_state(state: Path) -> None:
    if state.is_symlink():
        raise Conflict(f"{state} is a link; what it leads to is not removed.", remedy="Remove it by hand.")
    check_nobody_runs(state)
    durable.remove_tree(state)


def _make_account(root: Path, account_path: Path) -> None:
    program = shutil.which("systemd-sysusers")
    if program is None:
        raise NotFound(
            "systemd-sysusers is not installed.",
            remedy=f"Create the system account {ACCOUNT} with a group of its name, then install again.",
        )
    _run([program, f"--root={root}", str(account_path)], SYSUSERS_TIMEOUT_S)
    if account_ids(root) is None:
        raise NotFound(f"systemd-sysusers did not create the account {ACCOUNT}.")


def _systemctl(root: Path, *arguments: str) -> None:
    """Tell the running systemd, if there is one and it is this root's."""
    program = shutil.which("systemctl")
    if root == Path("/") and Path("/run/systemd/system").is_dir() and program is not None:
        _run([program, *arguments], SYSTEMCTL_TIMEOUT_S)


def _run(command: list[str], timeout_s: float) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MusterError(f"{' '.join(command)} did not end: {error}.") from error
    if done.returncode:
        raise MusterError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")


def _check_rights(*, dry_run: bool) -> None:
    if os.geteuid() != 0 and not dry_run:
        raise NotPermitted("Only root may set up a service.", remedy="Use sudo, or look with --dry-run.")


def _checked_command(root: Path, executable: Path) -> str:
    """Return the command for the unit's ExecStart."""
    command = str(executable)
    if not re.fullmatch(r"/[A-Za-z0-9_./+-]+", command) or ".." in executable.parts:
        raise InvalidConfiguration(f"{command!r:.200} cannot stand in a unit.", remedy="Give a plain path.")
    if any(executable.is_relative_to(hidden) for hidden in _HIDDEN):
        raise InvalidConfiguration(
            f"The service would not see {command}: homes and temporary folders are hidden from it.",
            remedy="Install Muster elsewhere, such as /opt/muster, and name its command by --executable.",
        )
    inside = root / command.lstrip("/")
    if not inside.is_file() or not os.access(inside, os.X_OK):
        raise NotFound(f"There is no command {inside}.", remedy="Name the agent's by --executable.")
    return command


def _inside(root: Path, path: Path) -> Path:
    """Return a path in a root folder; its folder must not lead out of it."""
    if not root.is_dir():
        raise NotFound(f"There is no folder {root}.")
    if not (root / path).parent.resolve().is_relative_to(root):
        raise InvalidConfiguration(f"{path} leads out of {root} by a link.", remedy="Repair the image.")
    return root / path


def _packaged(name: str) -> bytes:
    return (files("agent.system") / name).read_bytes()
