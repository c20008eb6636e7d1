"""Handlers of messages for the tests of the hub's MQTT: one message at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from hub.mqtt import Handler
from hub.mqtt_packets import Published


def one_by_one(handle: Callable[[str, bytes], Awaitable[None]]) -> Handler:
    """Return a handler of batches that calls this for each message."""

    async def handle_all(messages: Sequence[Published]) -> None:
        for message in messages:
            await handle(message.topic, message.payload)

    return handle_all
