"""The embedded broker: amqtt as a process of its own, for demo and development.

``python -m hub.broker.embedded`` reads one line of JSON from standard input::

    {"host": "127.0.0.1", "port": 1883, "accounts_file": "/…/accounts"}

and serves until standard input closes, which it does however the hub ends. A line ``reload`` ends the
connections of accounts that were removed from the accounts file; the file itself is read again by itself.

Its limits stand in ``docs/reference/brokers.md``: MQTT 3.1.1 only, sessions in memory only, and a message
that was sent but not acknowledged when a connection breaks is lost. The protocol does not depend on more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from io import FileIO
from pathlib import Path
from typing import Any

from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig

from hub.broker.door import LISTENER, Door

SESSION_EXPIRY_S = 24 * 3600
_NO_TIMER_S = 10**9
"""Added by amqtt to every keep-alive, so that only the door's timer counts: amqtt's would end nothing."""


class _Broker(Broker):  # type: ignore[misc]  # amqtt is not typed
    """amqtt without retained messages: it would hand them to clients that may not read them."""

    async def retain_message(self, *_: Any, **__: Any) -> None:
        """Keep nothing."""


async def serve(host: str, port: int, accounts_file: Path, commands: FileIO) -> None:
    """Serve until there are no more commands.

    Args:
        host: Address to listen on.
        port: TCP port to listen on.
        accounts_file: See `hub.broker.accounts`.
        commands: The pipe from the hub.

    Raises:
        OSError: The address cannot be used.
    """
    lines = await _lines(commands)
    broker = _Broker(_configuration(accounts_file))
    await broker.start()
    door = Door(broker, accounts_file)
    server = await door.listen(host, port)
    while line := await lines.readline():
        if line.strip() == b"reload":
            door.drop_departed()
    server.close()


def _configuration(accounts_file: Path) -> BrokerConfig:
    return BrokerConfig.from_dict(
        {
            "listeners": {"default": {"type": "external"}, LISTENER: {"type": "external"}},
            "timeout_disconnect_delay": _NO_TIMER_S,
            "session_expiry_interval": SESSION_EXPIRY_S,
            "plugins": {
                "hub.broker.plugins.AccountsPlugin": {"accounts_file": str(accounts_file)},
                "hub.broker.plugins.TopicsPlugin": {},
                "hub.broker.plugins.WaitingPlugin": {},
            },
        }
    )


async def _lines(pipe: FileIO) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


def main() -> None:
    """Read the configuration line and serve."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    commands = FileIO(0, closefd=False)  # without a buffer, which would swallow the lines that follow
    settings = json.loads(commands.readline())
    try:
        asyncio.run(serve(settings["host"], settings["port"], Path(settings["accounts_file"]), commands))
    except OSError as error:
        sys.exit(f"{settings['host']}:{settings['port']} cannot be listened on: {error.strerror}")


if __name__ == "__main__":
    main()
