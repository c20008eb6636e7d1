"""Files of the image repository over MQTT, asked for in parts; `agent.trust.tuf_client` joins them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from agent.backoff import Backoff
from fleet.protocol.errors import BrokerUnavailable, DeliveryTimedOut, InvalidMessage
from fleet.protocol.messages import FILE_PART_SIZE_BYTES, FetchRequest, FileAnswer, decode, encode


class FileClient:
    """Asks the hub for parts of files. Lives in the event loop.

    Args:
        publish: Sends the bytes of a `FetchRequest`.
        wait_connected: Waits for a connection; time without one does not count as an attempt.
        timeout_s: How long an answer may take.
        attempts: How often a part is asked for before giving up.
        backoff: Makes the waits between attempts.
    """

    def __init__(
        self,
        publish: Callable[[bytes], Awaitable[None]],
        wait_connected: Callable[[], Awaitable[None]],
        *,
        timeout_s: float,
        attempts: int,
        backoff: Callable[[], Backoff],
    ) -> None:
        self._publish = publish
        self._wait_connected = wait_connected
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._backoff = backoff
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[FileAnswer]] = {}

    def on_answer(self, payload: bytes) -> None:
        """Take an answer from the hub; one that nobody waits for is late or double, and is dropped.

        Raises:
            InvalidInput: It cannot be understood.
        """
        answer = decode(payload, FileAnswer)
        if len(answer.data) > FILE_PART_SIZE_BYTES:
            raise InvalidMessage(f"A part of a file has {len(answer.data)} bytes.")
        waiting = self._waiting.get(answer.request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def part(self, path: str, offset: int) -> FileAnswer:
        """Return one part of a file.

        Args:
            path: Relative to the repository.
            offset: Its first byte.

        Raises:
            DeliveryTimedOut: No answer came, after bounded retries.
        """
        backoff = self._backoff()
        for _ in range(self._attempts):
            await self._wait_connected()
            number = next(self._numbers)
            answer = self._waiting[number] = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._publish(encode(FetchRequest(number, path, offset)))
                    received: FileAnswer = await answer
            except (TimeoutError, BrokerUnavailable):
                await asyncio.sleep(backoff.next_s())
            else:
                return received
            finally:
                del self._waiting[number]
        raise DeliveryTimedOut(f"The hub did not send {path:.120}, after {self._attempts} attempts.")
