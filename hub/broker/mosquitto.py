"""Mosquitto: how it is found, which version it has, and the configuration that the hub gives it.

Settings that matter, with what happens without them (measured; see ``docs/reference/brokers.md``):

- ``persistence``, ``autosave_interval 1``: a killed broker forgets every queue; with them, its last second.
- ``autosave_on_changes false``: with it, everything is written at each change, and the hub is given 130
  messages a second in place of 40,000.
- ``max_queued_messages``: from 1,000 messages on, a queue drops silently.
- ``set_tcp_nodelay``: connecting takes tens of milliseconds.
- ``use_username_as_clientid``: an account could take over the session of another.
- ``retain_available false``: nothing here is retained, so a retained message could only be an intruder's.

Mosquitto checks permissions when a message is delivered, not when a filter is subscribed to: a forbidden
subscription is accepted and stays silent.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from fleet.protocol.errors import BrokerUnavailable, InvalidConfiguration
from fleet.protocol.messages import MAX_MESSAGE_SIZE_BYTES, MAX_PACKET_SIZE_BYTES
from fleet.protocol.topics import HUB_ACCOUNT, device_may_publish, device_may_read
from hub.durable import write_durably

FIRST_SOUND_VERSION = (2, 0, 21)
"""Earlier releases lose acknowledged QoS 1 messages to a fast subscriber (2.0.11 did in 12 of 12 runs)."""

INSTALL_HINT = "Install it: apt-get install mosquitto"
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")

_SETTINGS = f"""\
per_listener_settings false
allow_anonymous false
retain_available false
persistence true
autosave_on_changes false
autosave_interval 1
max_queued_messages 100000
max_queued_bytes 268435456
max_inflight_messages 256
max_packet_size {MAX_PACKET_SIZE_BYTES}
message_size_limit {MAX_MESSAGE_SIZE_BYTES}
set_tcp_nodelay true
connection_messages false
log_dest stderr
log_type error
log_type warning
"""


def find_mosquitto() -> Path | None:
    """Return the broker's program, also where it is not on an ordinary user's path; None if there is none."""
    search = os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_FOLDERS))
    found = shutil.which("mosquitto", path=search)
    return Path(found) if found else None


def mosquitto_version(program: Path) -> tuple[int, int, int]:
    """Return the program's version.

    Raises:
        BrokerUnavailable: It cannot be run or does not say.
    """
    try:
        answer = subprocess.run([program, "-h"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerUnavailable(f"{program} cannot be run.", remedy=INSTALL_HINT) from error
    match = re.search(rb"mosquitto version (\d+)\.(\d+)\.(\d+)", answer.stdout + answer.stderr)
    if match is None:
        raise BrokerUnavailable(f"{program} does not say which version it is.", remedy=INSTALL_HINT)
    return int(match[1]), int(match[2]), int(match[3])


def version_warnings(version: tuple[int, int, int]) -> tuple[str, ...]:
    """Return what a person who runs this version should know."""
    if version >= FIRST_SOUND_VERSION:
        return ()
    return (
        f"Mosquitto {_dotted(version)} can lose messages that it has acknowledged; devices send them again. "
        f"Use {_dotted(FIRST_SOUND_VERSION)} or newer.",
    )


def write_configuration(folder: Path, host: str, port: int, accounts_file: Path) -> Path:
    """Write ``mosquitto.conf`` and its access rules.

    Args:
        folder: Where they go, and where the broker keeps its sessions.
        host: Address to listen on.
        port: TCP port to listen on.
        accounts_file: See `hub.broker.accounts`.

    Returns:
        The configuration file.

    Raises:
        InvalidConfiguration: A path or the address has a line break.
        StorageError: A file cannot be written.
    """
    rules = folder / "mosquitto.acl"
    lines = [
        # Started as root, it would become the user "mosquitto", who cannot read this folder.
        *(["user root"] if os.geteuid() == 0 else []),
        _SETTINGS.rstrip(),
        f"persistence_location {folder}/",
        f"password_file {accounts_file}",
        f"acl_file {rules}",
        f"listener {port} {host}",
        "use_username_as_clientid true",
    ]
    if any("\n" in str(part) or "\r" in str(part) for part in (folder, accounts_file, host)):
        raise InvalidConfiguration("A path or address for the broker has a line break.")
    write_durably(rules, _access_rules().encode(), mode=0o600)
    configuration = folder / "mosquitto.conf"
    write_durably(configuration, "\n".join([*lines, ""]).encode(), mode=0o600)
    return configuration


def _access_rules() -> str:
    user = "%u"  # Mosquitto puts the account's name there
    return "\n".join(
        [
            f"user {HUB_ACCOUNT}",
            "topic readwrite #",
            *(f"pattern write {topic}" for topic in device_may_publish(user)),
            *(f"pattern read {topic}" for topic in device_may_read(user)),
            "",
        ]
    )


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
