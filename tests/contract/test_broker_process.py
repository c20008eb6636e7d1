"""The broker as a child process: which one is taken, how it fails, and that it never outlives the hub."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fleet.protocol.errors import BrokerUnavailable, InvalidName
from fleet.protocol.topics import HUB_ACCOUNT, Down, device_subscription, down
from hub.broker import mosquitto
from hub.broker.kinds import KINDS, Kind
from hub.broker.mosquitto import FIRST_SOUND_VERSION, mosquitto_version, version_warnings
from hub.broker.process import start_broker
from tests.support.brokers import HOST, RunningBroker, listens, require_mosquitto
from tests.support.mqtt_client import Client
from tests.support.waiting import eventually

DEADLINE_S = 15.0


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _command_lines() -> str:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            lines.append(path.read_text(errors="replace"))
    return "\n".join(lines)


def _processes_with(argument: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            arguments = path.read_text(errors="replace").split("\0")
            if argument in arguments and arguments[0].endswith("mosquitto"):
                found.append(int(path.parent.name))
    return found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    if request.param == "mosquitto":
        require_mosquitto()
    chosen: Kind = request.param
    return chosen


@pytest.fixture
def hub(kind: Kind, tmp_path: Path) -> subprocess.Popen[bytes]:
    """A hub in a process of its own that has started a broker and printed its port."""
    program = (
        "import asyncio; from pathlib import Path; from hub.broker.process import start_broker\n"
        "async def main() -> None:\n"
        f"    broker = await start_broker({kind!r}, Path({str(tmp_path)!r}), '127.0.0.1', 0, {{}})\n"
        "    print(broker.port, flush=True)\n"
        "    await broker.wait()\n"
        "asyncio.run(main())\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path.cwd()
    )


def test_a_broker_does_not_outlive_a_hub_that_was_killed(hub: subprocess.Popen[bytes]) -> None:
    with hub:
        assert hub.stdout is not None
        port = int(hub.stdout.readline())
        assert listens(port)
        hub.kill()
    eventually(lambda: not listens(port), "the broker has ended with its hub")


def test_a_hub_sees_that_its_broker_ended_and_nothing_remains(hub: subprocess.Popen[bytes]) -> None:
    with hub:
        assert hub.stdout is not None
        port = int(hub.stdout.readline())
        for child in _children(hub.pid):  # the leash of Mosquitto, or the embedded broker itself
            os.kill(child, signal.SIGKILL)
        assert hub.wait(DEADLINE_S) != 0
    eventually(lambda: not listens(port), "the broker has ended with its leash")


def test_a_port_in_use_is_said_at_once(kind: Kind, tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        started_s = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=rf"{port} ended.*(in use|listened)"):
            asyncio.run(start_broker(kind, tmp_path, HOST, port, {}))
        assert time.monotonic() - started_s < DEADLINE_S


def test_stopping_twice_does_no_harm(kind: Kind, tmp_path: Path) -> None:
    async def story() -> int:
        broker = await start_broker(kind, tmp_path, HOST, 0, {})
        waiting = asyncio.create_task(broker.wait())
        await broker.stop()
        await broker.stop()
        await waiting  # does not raise: the end was wanted
        with pytest.raises(BrokerUnavailable):
            await broker.update_accounts({})
        return broker.port

    assert not listens(asyncio.run(story()))


def test_an_unusable_account_name_changes_nothing(kind: Kind, tmp_path: Path) -> None:
    broker = RunningBroker(kind, tmp_path)
    try:
        before = (tmp_path / "accounts").read_bytes()
        broker.passwords["a:b\nroot"] = "x"
        with pytest.raises(InvalidName):
            broker.apply_accounts()
        assert (tmp_path / "accounts").read_bytes() == before
    finally:
        broker.stop()


def test_no_secret_stands_on_a_command_line_or_in_a_file_that_others_can_read(
    kind: Kind, tmp_path: Path
) -> None:
    broker = RunningBroker(kind, tmp_path)
    try:
        arguments = _command_lines()
        shown = {"embedded": "hub.broker.embedded", "mosquitto": f"{tmp_path}/mosquitto.conf"}
        assert shown[kind] in arguments
        assert not any(password in arguments for password in broker.passwords.values())
        assert tmp_path.stat().st_mode & 0o077 == 0
        assert (tmp_path / "accounts").stat().st_mode & 0o077 == 0
    finally:
        broker.stop()


def test_auto_takes_mosquitto_only_where_it_is_sound(tmp_path: Path) -> None:
    version = mosquitto_version(require_mosquitto())

    async def chosen() -> str:
        broker = await start_broker("auto", tmp_path, HOST, 0, {})
        await broker.stop()
        return broker.kind

    assert asyncio.run(chosen()) == ("mosquitto" if version >= FIRST_SOUND_VERSION else "embedded")
    assert bool(version_warnings(version)) == (version < FIRST_SOUND_VERSION)


def test_a_missing_mosquitto_is_said_with_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(mosquitto, "_SYSTEM_FOLDERS", ())
    with pytest.raises(BrokerUnavailable, match="apt-get install mosquitto"):
        asyncio.run(start_broker("mosquitto", tmp_path, HOST, 0, {}))


def test_mosquitto_forgets_no_session_when_it_is_killed(tmp_path: Path) -> None:
    broker = RunningBroker("mosquitto", tmp_path)
    device = broker.new_device()
    hashes = broker.hashes()
    with Client(broker, device, clean=False) as client:
        assert client.subscribe(device_subscription(device))
    with Client(broker, HUB_ACCOUNT) as hub:
        for number in range(20):
            hub.publish(down(device, Down.ACK), b"message %d" % number)
        saved = tmp_path / "mosquitto.db"
        eventually(lambda: saved.exists() and b"message 19" in saved.read_bytes(), "the queue is saved")
        for pid in _processes_with(str(tmp_path / "mosquitto.conf")):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not listens(broker.port), "Mosquitto was killed")
    broker.stop()

    async def again() -> list[bytes]:
        returned = await start_broker("mosquitto", tmp_path, HOST, broker.port, hashes)
        client = await asyncio.to_thread(Client(broker, device, clean=False).wait_connected)
        received = [(await asyncio.to_thread(client.receive)).payload for _ in range(20)]
        await asyncio.to_thread(client.close)
        await returned.stop()
        return received

    assert asyncio.run(again()) == [b"message %d" % number for number in range(20)]


@pytest.mark.parametrize("stubborn", [False, True])
def test_the_leash_ends_its_command_when_the_pipe_closes(stubborn: bool) -> None:
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if stubborn else ""
    command = [sys.executable, "-c", f"{ignore}import time\nprint('up', flush=True)\ntime.sleep(600)"]
    leash = subprocess.Popen(
        [sys.executable, "-m", "hub.leash", "--", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path.cwd(),
    )
    assert leash.stdin is not None
    assert leash.stdout is not None
    assert leash.stdout.readline() == b"up\n"
    (child,) = _children(leash.pid)
    leash.send_signal(signal.SIGTERM)  # a signal alone does not break it
    leash.stdin.close()
    leash.wait(DEADLINE_S)
    leash.stdout.close()
    eventually(lambda: not Path(f"/proc/{child}").exists(), "the command has ended with its leash")
