"""A TCP proxy that is a bad network: slow, lossy, cut off, silent, or another program altogether.

It stands between an agent and its broker and runs in a thread of its own. A link keeps its bytes in order, as
TCP does; what is cut off was delivered up to some byte, which need not be the end of a packet.

==========  ======================================================================================
mode        what a client meets
==========  ======================================================================================
FORWARD     the target, through the link
REFUSE      nobody listens: the connection is closed at once
MUTE        the connection is accepted and never answered
GARBAGE     random bytes, whatever is said
FROZEN      existing connections stand and carry nothing; new ones are MUTE: the peer's machine has gone
==========  ======================================================================================
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine
from contextlib import suppress
from enum import Enum, auto
from typing import Any, NamedTuple

from tests.support.brokers import HOST

_READ_SIZE_BYTES = 16 * 1024


class Mode(Enum):
    """What the proxy does with connections."""

    FORWARD = auto()
    REFUSE = auto()
    MUTE = auto()
    GARBAGE = auto()
    FROZEN = auto()


class Weather(NamedTuple):
    """How good the link is.

    Attributes:
        latency_s: Added to each piece, each way.
        bytes_per_s: What passes to the client; 0: as much as comes.
        cut_after_bytes: Least and most that passes to the client before the connection is cut; None: never.
        most_bytes: Of one piece; larger ones are taken apart.
    """

    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    cut_after_bytes: tuple[int, int] | None = None
    most_bytes: int = _READ_SIZE_BYTES


class FaultProxy:
    """The proxy.

    Args:
        target_port: Where connections lead, on this machine.
        seed: Of everything that is drawn.
        weather: How good the link is.

    Attributes:
        port: Where it listens.
        received_bytes: What clients received, connection by connection.
    """

    def __init__(self, target_port: int, seed: int = 1, weather: Weather = Weather()) -> None:  # noqa: B008 - immutable
        self.target_port = target_port
        self.weather = weather
        self.received_bytes: list[int] = []
        self._random = random.Random(seed)
        self._mode = Mode.FORWARD
        self._thawed = asyncio.Event()
        self._links: set[asyncio.Task[None]] = set()
        self._faults: list[Exception] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._server = self._run(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def connections(self) -> int:
        """How many connections there were."""
        return len(self.received_bytes)

    def become(self, mode: Mode) -> None:
        """Change the mode. Standing connections are cut, except by FROZEN."""
        self._run(self._become(mode))

    def cut(self) -> None:
        """Cut the connections that stand."""
        self._run(self._cut())

    def close(self) -> None:
        """End it.

        Raises:
            Exception: What went wrong here while a connection was served.
        """
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._faults:
            raise self._faults[0]

    async def _listen(self) -> asyncio.Server:
        self._thawed.set()
        return await asyncio.start_server(self._accept, HOST, 0)

    async def _become(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.FROZEN:
            self._thawed.clear()
        else:
            await self._cut()
            self._thawed.set()

    async def _cut(self) -> None:
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _end(self) -> None:
        self._server.close()
        await self._cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        self.received_bytes.append(0)
        try:
            await self._serve(reader, writer, len(self.received_bytes) - 1)
        except (OSError, asyncio.CancelledError):
            pass  # a cut, from here or there
        except Exception as error:
            self._faults.append(error)
        finally:
            self._links.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        match self._mode:
            case Mode.FORWARD:
                await self._forward(reader, writer, number)
            case Mode.MUTE | Mode.FROZEN:
                while await reader.read(_READ_SIZE_BYTES):
                    pass
            case Mode.GARBAGE:
                await reader.read(_READ_SIZE_BYTES)
                noise = self._random.randbytes(self._random.randrange(400))
                writer.write(self._random.choice(_ANSWERS) + noise)
                await writer.drain()
                await reader.read(_READ_SIZE_BYTES)
            case Mode.REFUSE:
                pass

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, self.target_port)
        limits = self.weather.cut_after_bytes
        left = self._random.randint(*limits) if limits else None
        ways = [
            asyncio.ensure_future(self._carry(reader, far_writer)),
            asyncio.ensure_future(self._carry(far_reader, writer, number, left)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            far_writer.transport.abort()  # before anything is waited for: another cut may come meanwhile
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        number: int | None = None,
        left: int | None = None,
    ) -> None:
        """Carry one way until either end is gone, or as many bytes as are left have passed."""
        while data := await source.read(self._random.randint(1, self.weather.most_bytes)):
            await self._thawed.wait()
            if left is not None:
                data, left = data[:left], left - len(data)
            pause_s = self.weather.latency_s
            if number is not None and self.weather.bytes_per_s:
                pause_s += len(data) / self.weather.bytes_per_s
            if pause_s:
                await asyncio.sleep(pause_s)
            sink.write(data)
            with suppress(ConnectionError):
                await sink.drain()
            if number is not None:
                self.received_bytes[number] += len(data)
            if left is not None and left <= 0:
                return

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)


_ANSWERS = (
    b"",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x20\x02\x00\x00",  # a connection that is accepted, and then nonsense
    b"\x20\x02\x00\x00\x32\x04\x00\x09ab",  # a publication whose topic is longer than the packet
    b"\x20\x02\x00\x00\x30\x06\x00\x02\xff\xfe\x00\x00",  # a topic that is no text
    b"\x20\x02\x00\x00\x90\x00",  # an acknowledgement of a subscription, of nothing
    b"\x20\x00",
    b"\x20\x02\x00\xff",
    b"\xff\xff\xff\xff\xff\xff",
)
"""How a garbage answer begins: as something that is not MQTT, or as MQTT that goes wrong at some point."""
