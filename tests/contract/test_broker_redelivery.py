"""What a hub that is killed while it handles messages gets again when it returns.

Mosquitto keeps what was not acknowledged and sends it again. The embedded broker forgets what was in flight
when the connection broke, and keeps what comes while the hub is away; devices send the rest again, because
they keep each record until the hub acknowledges it by number.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fleet.protocol.topics import HUB_ACCOUNT, Up, up
from hub.mqtt import HubMqtt
from tests.support.brokers import HOST, RunningBroker
from tests.support.handlers import one_by_one
from tests.support.mqtt_client import Client

TIMEOUT_S = 20.0
_HANGING_HUB = """
import asyncio, sys
from hub.mqtt import HubMqtt
from fleet.protocol.topics import HUB_ACCOUNT
from tests.support.handlers import one_by_one

async def handle(topic: str, payload: bytes) -> None:
    print(payload.decode(), flush=True)
    if payload != b"0":
        await asyncio.Event().wait()

async def main() -> None:
    password = sys.stdin.readline().strip()
    hub = HubMqtt("127.0.0.1", int(sys.argv[1]), HUB_ACCOUNT, password, one_by_one(handle))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hub.run())
        await hub.wait_connected(20)
        print("ready", flush=True)

asyncio.run(main())
"""


def test_a_hub_killed_while_it_handles_a_message_gets_it_again(broker: RunningBroker) -> None:
    device = broker.new_device()
    hub = subprocess.Popen(
        [sys.executable, "-c", _HANGING_HUB, str(broker.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path.cwd(),
    )
    assert hub.stdin is not None
    assert hub.stdout is not None
    hub.stdin.write(broker.passwords[HUB_ACCOUNT] + "\n")
    hub.stdin.flush()
    assert hub.stdout.readline() == "ready\n"
    with Client(broker, device) as client:
        for number in range(4):
            client.publish(up(device, Up.RECORD), b"%d" % number)
        assert [hub.stdout.readline() for _ in range(2)] == ["0\n", "1\n"]
        hub.send_signal(signal.SIGKILL)
        hub.wait()
        hub.stdin.close()
        hub.stdout.close()
        after = asyncio.run(
            _received_by_a_new_hub(broker, lambda: client.publish(up(device, Up.RECORD), b"4"))
        )
    assert after[-1] == b"4"
    if broker.kind == "mosquitto":
        assert after[-4:] == [b"1", b"2", b"3", b"4"]  # and perhaps 0, if its acknowledgement was not out yet


async def _received_by_a_new_hub(broker: RunningBroker, publish_last: Callable[[], None]) -> list[bytes]:
    received: list[bytes] = []
    done = asyncio.Event()

    async def handle(_: str, payload: bytes) -> None:
        received.append(payload)
        if payload == b"4":
            done.set()

    hub = HubMqtt(HOST, broker.port, HUB_ACCOUNT, broker.passwords[HUB_ACCOUNT], one_by_one(handle))
    running = asyncio.create_task(hub.run())
    await hub.wait_connected(TIMEOUT_S)
    await asyncio.to_thread(publish_last)
    async with asyncio.timeout(TIMEOUT_S):
        await done.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    return received
