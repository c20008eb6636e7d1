"""The broker as the hub runs it: a child process that starts, takes new accounts, and never outlives the hub.

Both kinds hang on a pipe that the hub holds (see `hub.leash`): when it closes, however the hub ended,
the broker stops. Commands go down the same pipe. Nothing secret stands on a command line.

When new accounts count cannot be seen from outside, so each accounts file also has the account ``_probe``
with a fresh password: once the broker lets that one in, it has read the file. The same handshake tells that
a broker is ready.
"""

from __future__ import annotations

import asyncio
import json
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version as package_version
from pathlib import Path

from fleet.protocol.errors import BrokerUnavailable, StorageError
from hub import children
from hub.broker import mosquitto
from hub.broker.accounts import hash_password, new_password, write_accounts
from hub.broker.kinds import Choice, Kind
from hub.broker.probe import lets_in
from hub.durable import make_folder, storage_error
from hub.leash import RELOAD

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 8.0
_PROBE = "_probe"
_POLL_S = 0.05


class Broker:
    """A running broker.

    Attributes:
        kind: Which one.
        version: Its version.
        host: The address that it listens on.
        port: The TCP port.
        warnings: What a person who runs it should know.
    """

    def __init__(
        self,
        process: Process,
        folder: Path,
        *,
        kind: Kind,
        version: str,
        host: str,
        port: int,
        warnings: tuple[str, ...],
    ) -> None:
        self.kind, self.version, self.host, self.port, self.warnings = kind, version, host, port, warnings
        self._process = process
        self._folder = folder
        self._stopping = False
        self._updating = asyncio.Lock()

    async def update_accounts(self, accounts: Mapping[str, str]) -> None:
        """Let these accounts in and no others; return when that is so.

        Args:
            accounts: Password hash by username, see `hub.broker.accounts`.

        Raises:
            InvalidName: A username is not usable.
            StorageError: The accounts file cannot be written.
            BrokerUnavailable: The broker ended or does not take the accounts.
        """
        async with self._updating:
            probe_password = await asyncio.to_thread(_write_accounts, self._folder, accounts)
            self.send(RELOAD)
            await self.wait_until_it_lets_in(probe_password)

    async def stop(self) -> None:
        """End the broker; to do so twice does no harm."""
        self._stopping = True
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def wait(self) -> None:
        """Wait until the broker has ended.

        Raises:
            BrokerUnavailable: It ended although nobody called `stop`.
        """
        await self._process.wait()
        if not self._stopping:
            raise self._failure("ended")

    async def wait_until_it_lets_in(self, probe_password: str) -> None:
        """Wait until the broker accepts the probe's password.

        Raises:
            BrokerUnavailable: It ended, or did not do so in time.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await lets_in(_reachable(self.host), self.port, _PROBE, probe_password):
                    if self._process.returncode is not None:
                        raise self._failure("ended")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise self._failure("does not answer") from error

    def send(self, command: bytes) -> None:
        """Write a line to the process that holds the broker."""
        if self._process.stdin is not None:
            self._process.stdin.write(command)

    def _failure(self, what: str) -> BrokerUnavailable:
        said = _last_words(self._folder)
        return BrokerUnavailable(f"The {self.kind} broker on {self.host}:{self.port} {what}.{said}")


async def start_broker(
    kind: Choice,
    folder: Path,
    host: str,
    port: int,
    accounts: Mapping[str, str],
) -> Broker:
    """Start a broker and wait until it lets accounts in.

    Args:
        kind: Which one, see `hub.broker.kinds`.
        folder: Where it keeps its files.
        host: Address to listen on.
        port: TCP port to listen on; 0 for any that is free.
        accounts: Password hash by username, see `hub.broker.accounts`.

    Raises:
        BrokerUnavailable: It is not installed, cannot start, or does not answer.
        InvalidName: A username is not usable.
        StorageError: Its files cannot be written.
    """
    program = mosquitto.find_mosquitto() if kind != "embedded" else None
    version = await asyncio.to_thread(mosquitto.mosquitto_version, program) if program else None
    if kind == "mosquitto" and program is None:
        raise BrokerUnavailable("Mosquitto is not installed.", remedy=mosquitto.INSTALL_HINT)
    if kind == "auto" and (version is None or version < mosquitto.FIRST_SOUND_VERSION):
        program = None
    port = port or _free_port(host)
    probe_password = await asyncio.to_thread(_write_accounts, folder, accounts)
    if program is None or version is None:
        broker = await _start_embedded(folder, host, port)
    else:
        broker = await _start_mosquitto(program, version, folder, host, port)
    try:
        await broker.wait_until_it_lets_in(probe_password)
    except BaseException:
        await broker.stop()
        raise
    return broker


async def _start_embedded(folder: Path, host: str, port: int) -> Broker:
    process = await _spawn(folder, "hub.broker.embedded")
    settings = {"host": host, "port": port, "accounts_file": str(_accounts_file(folder))}
    version = f"amqtt {package_version('amqtt')}"
    broker = Broker(process, folder, kind="embedded", version=version, host=host, port=port, warnings=())
    broker.send(json.dumps(settings).encode() + b"\n")
    return broker


async def _start_mosquitto(
    program: Path, version: tuple[int, int, int], folder: Path, host: str, port: int
) -> Broker:
    configuration = await asyncio.to_thread(
        mosquitto.write_configuration, folder, host, port, _accounts_file(folder)
    )
    process = await _spawn(folder, "hub.leash", "--", str(program), "-c", str(configuration))
    return Broker(
        process,
        folder,
        kind="mosquitto",
        version=f"mosquitto {'.'.join(map(str, version))}",
        host=host,
        port=port,
        warnings=mosquitto.version_warnings(version),
    )


async def _spawn(folder: Path, module: str, *arguments: str) -> Process:
    """Start one of our modules with a pipe to it; a session of its own keeps Ctrl-C for the hub."""
    log = folder / "broker.log"
    try:
        with log.open("wb") as output:
            return await asyncio.create_subprocess_exec(
                *children.command(module, *arguments),
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=output,
                env=children.environment(),
                start_new_session=True,
            )
    except OSError as error:
        raise storage_error(log, error) from error


def _write_accounts(folder: Path, accounts: Mapping[str, str]) -> str:
    """Write the accounts file with a new probe; return the probe's password."""
    try:
        make_folder(folder)
        folder.chmod(0o700)
    except OSError as error:
        raise storage_error(folder, error) from error
    probe_password = new_password()
    write_accounts(_accounts_file(folder), {**accounts, _PROBE: hash_password(probe_password)})
    return probe_password


def _accounts_file(folder: Path) -> Path:
    return folder / "accounts"


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.bind((host, 0))
            port: int = probe.getsockname()[1]
            return port
    except OSError as error:
        raise BrokerUnavailable(f"No port is free on {host}: {error.strerror or error}.") from error


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - translated


def _last_words(folder: Path) -> str:
    """Return the last line that the broker wrote, as a sentence to append; empty if it wrote none."""
    with suppress(OSError, StorageError):
        lines = (folder / "broker.log").read_text("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f" It said: {last[:300]}" if last else ""
    return ""
