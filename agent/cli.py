"""``muster-agent``: enrol a device, run its agent, look at its state, make it a service.

Errors are one line on standard error, ``error: what and remedy [code]``, and exit code 1; wrong usage is
exit code 2. The enrolment token comes from the environment, a file or standard input: command lines are for
all to see.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from fleet.protocol.enrolment import MAX_ENROLMENT_SIZE_BYTES
from fleet.protocol.errors import InvalidConfiguration, MusterError

TOKEN_VARIABLE = "MUSTER_ENROLMENT_TOKEN"  # noqa: S105 - the variable's name
FAILED = 1
"""Exit code of an agent that a fault of its own ended: whoever supervises it starts it again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command and return the exit code."""
    given = _parser().parse_args(arguments)
    try:
        code: int = given.command(given)
    except MusterError as error:
        print(f"error: {error} [{error.code}]", file=sys.stderr)  # noqa: T201 - this is the command line
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="muster-agent", description="The Muster agent of one device.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    enroll = commands.add_parser(
        "enroll",
        help="make this device a member of the fleet",
        description=f"The one-time token is read from --token-file, {TOKEN_VARIABLE} or standard input.",
    )
    enroll.add_argument("--hub", required=True, metavar="URL", help="the hub's address, http://host:port")
    enroll.add_argument(
        "--state", required=True, type=Path, metavar="FOLDER", help="the agent's state folder, new"
    )
    enroll.add_argument("--id", required=True, metavar="NAME", help="the device's name in the fleet")
    enroll.add_argument("--token-file", type=Path, metavar="FILE", help="a file that holds the token")
    enroll.add_argument(
        "--attribute",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what operators select devices by",
    )
    enroll.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="see docs/reference/agent-settings.md",
    )
    enroll.set_defaults(command=_enroll)

    run = commands.add_parser("run", help="run the agent until it is told to stop")
    run.add_argument("--state", required=True, type=Path, metavar="FOLDER", help="the state folder")
    run.set_defaults(command=_run)

    status = commands.add_parser("status", help="show what the device runs")
    status.add_argument("--state", required=True, type=Path, metavar="FOLDER", help="the state folder")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(command=_status)
    _add_remote_commands(commands)
    _add_service_commands(commands)
    return parser


def _add_remote_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    hold = commands.add_parser("hold", help="swap in no version until this is released")
    hold.add_argument("--reason", default="", metavar="TEXT", help="why; shown here and at the hub")
    hold.set_defaults(command=_hold)
    release = commands.add_parser("release", help="let versions be swapped in again")
    release.set_defaults(command=_release)
    diagnose = commands.add_parser(
        "diagnose",
        help="write a diagnostic bundle, as the hub can ask for it",
        description="What only a running agent knows, such as the last of its log, is not in it.",
    )
    diagnose.add_argument("--out", type=Path, metavar="FILE", help="DEVICE.jsonl.gz here by default")
    diagnose.set_defaults(command=_diagnose)
    for command in (hold, release, diagnose):
        command.add_argument("--state", required=True, type=Path, metavar="FOLDER", help="the state folder")


def _add_service_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    install = commands.add_parser(
        "install",
        help="set the agent up as a service of systemd",
        description="Sets up account, folders, settings and unit; what stands already is left as it is.",
    )
    install.add_argument(
        "--executable",
        type=Path,
        default=Path(sys.executable).with_name("muster-agent"),
        metavar="FILE",
        help="the muster-agent command that the service calls; this one by default",
    )
    install.set_defaults(command=_install)
    uninstall = commands.add_parser(
        "uninstall", help="remove the service", description="The state folder and the account are kept."
    )
    uninstall.add_argument("--purge", action="store_true", help="remove the state folder too")
    uninstall.set_defaults(command=_uninstall)
    for command in (install, uninstall):
        command.add_argument(
            "--root", type=Path, default=Path("/"), metavar="FOLDER", help="the root folder of an image"
        )
        command.add_argument("--dry-run", action="store_true", help="tell what would be done, and do nothing")


def _enroll(given: argparse.Namespace) -> int:
    from agent.enroll import enroll
    from agent.settings import parse_assignments, split_pairs

    identity = enroll(
        given.state,
        hub_url=given.hub,
        device_id=given.id,
        token_text=_token(given.token_file),
        attributes=dict(split_pairs(given.attribute)),
        settings=parse_assignments(given.setting),
    )
    _print(f"{identity.device_id} is enrolled; start it with: muster-agent run --state {given.state}")
    return 0


def _token(path: Path | None) -> str:
    if path is not None:
        try:
            with path.open(encoding="utf-8") as stream:
                return stream.read(MAX_ENROLMENT_SIZE_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfiguration(f"The token file {path} cannot be read.") from error
    from_environment = os.environ.pop(TOKEN_VARIABLE, "")
    return from_environment or sys.stdin.read(MAX_ENROLMENT_SIZE_BYTES)


def _run(given: argparse.Namespace) -> int:
    from agent.daemon import Daemon
    from agent.identity import read_identity
    from agent.lock import lock_state
    from agent.log import log_to_stderr
    from agent.settings import read_settings

    read_identity(given.state)  # before anything is written to a folder that is none
    settings = read_settings(given.state)
    lock = lock_state(given.state)
    log_to_stderr(settings.log_level, settings.log_format)
    faulthandler.enable()  # a crash in native code, or the watchdog's SIGABRT, shows where every thread was

    async def live() -> bool:
        return await Daemon(given.state).run()

    loop = asyncio.new_event_loop()
    try:
        is_orderly = loop.run_until_complete(live())
    except MusterError:
        loop.close()
        raise
    # What must last was written by now. Threads that still compute (a model that hangs, a last chunk) would
    # hold up the interpreter's orderly end, and the state folder stands at every instant.
    logging.shutdown()
    sys.stderr.flush()
    os.close(lock)
    os._exit(0 if is_orderly else FAILED)


def _status(given: argparse.Namespace) -> int:
    from agent.status import read_status

    status = read_status(given.state)
    if given.json:
        _print(msgspec.json.format(msgspec.json.encode(status)).decode())
        return 0
    _print(f"device    {status.device_id}, enrolled at {status.hub_url}")
    _print(f"agent     {'running' if status.running else 'not running'}, local API at {status.socket}")
    _print(f"orders    assignment {status.sequence} accepted" if status.sequence else "orders    none yet")
    _print(f"outbox    {status.unacknowledged_records} record(s) that the hub does not have yet")
    if status.held:
        _print(f"updates   {status.held}")
    for model in status.models:
        version = f"version {model.version} ({model.variant})" if model.version else "no version"
        by = f" on {status.accelerators[model.model]}" if model.model in status.accelerators else ""
        _print(f"model     {model.model}: {version}, {model.phase}{by}")
        if model.waiting_for:
            _print(f"          waiting: {model.waiting_for}")
    return 0


def _hold(given: argparse.Namespace) -> int:
    from agent.identity import read_identity
    from agent.life.hold import hold

    read_identity(given.state)  # before anything is written to a folder that is none
    hold(given.state, given.reason)
    _print("Updates are held on this device until they are released; one that is being tried goes on.")
    return 0


def _release(given: argparse.Namespace) -> int:
    from agent.identity import read_identity
    from agent.life.hold import release

    read_identity(given.state)
    release(given.state)
    _print("Updates are no longer held on this device.")
    return 0


def _diagnose(given: argparse.Namespace) -> int:
    from agent import durable
    from agent.diagnostics import collect
    from agent.identity import read_identity

    data = collect(given.state)
    path: Path = given.out or Path(f"{read_identity(given.state).device_id}.jsonl.gz")
    with durable.storage_errors(path):
        path.write_bytes(data)
    _print(f"The bundle is in {path}.")
    return 0


def _install(given: argparse.Namespace) -> int:
    from agent.system.install import ACCOUNT, STATE_PATH, UNIT, install

    install(given.root, given.executable, dry_run=given.dry_run, say=_print)
    if not given.dry_run:
        enroll = f"{given.executable} enroll --hub URL --id NAME --state /{STATE_PATH} --token-file FILE"
        _print(f"Next: runuser -u {ACCOUNT} -- {enroll}\n      systemctl enable --now {UNIT}")
    return 0


def _uninstall(given: argparse.Namespace) -> int:
    from agent.system.install import uninstall

    uninstall(given.root, purge=given.purge, dry_run=given.dry_run, say=_print)
    return 0


def _print(text: str) -> None:
    print(text)  # noqa: T201 - this is the command line
