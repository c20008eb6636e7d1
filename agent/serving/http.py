"""HTTP/1.1 on a Unix socket: h11 for the protocol, asyncio for the bytes.

One task for each connection, which it keeps alive between requests. A request's declared size is checked
before its body is read, and what is read is counted again, for a chunked body declares nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import h11

from agent import durable
from fleet.protocol.errors import Conflict, InvalidConfiguration, InvalidMessage, MessageTooLarge, MusterError

log = logging.getLogger(__name__)

_READ_SIZE_BYTES = 64 * 1024
_MAX_PATH_LENGTH = 107
IDLE_TIMEOUT_S = 120.0


class Response(NamedTuple):
    """What a request is answered with.

    Attributes:
        status: HTTP status code.
        body: JSON.
    """

    status: int
    body: bytes


Respond = Callable[[str, str, bytes], Awaitable[Response]]
"""Answers a method, a path and a body; it must not raise."""

Refuse = Callable[[MusterError], Response]
"""Answers a request that could not be read."""


class HttpServer:
    """Serves on a Unix socket.

    Args:
        path: The socket's path.
        respond: Answers requests.
        refuse: Answers what is no request.
        limit_bytes: Largest body that is read.
    """

    def __init__(self, path: Path, respond: Respond, refuse: Refuse, limit_bytes: int) -> None:
        self._path = path
        self._respond = respond
        self._refuse = refuse
        self._limit_bytes = limit_bytes
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. A socket file whose process is dead is replaced.

        Raises:
            Conflict: A living process listens there.
            InvalidConfiguration: The path cannot be a socket.
        """
        _check_path(self._path)
        with durable.storage_errors(self._path):
            self._server = await asyncio.start_unix_server(self._accept, str(self._path))
            self._path.chmod(durable.PRIVATE)

    async def close(self) -> None:
        """Stop listening, end the connections and remove the socket file."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=0.2)
        self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await _Conversation(reader, writer, self._limit_bytes).hold(self._respond, self._refuse)
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            log.debug("A local connection ended early.")
        finally:
            self._connections.discard(task)
            writer.close()


class _Conversation:
    """The requests of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit_bytes: int) -> None:
        self._reader = reader
        self._writer = writer
        self._limit_bytes = limit_bytes
        self._http = h11.Connection(h11.SERVER)

    async def hold(self, respond: Respond, refuse: Refuse) -> None:
        """Answer requests until either side ends the connection."""
        while True:
            try:
                request = await self._next_event()
                if not isinstance(request, h11.Request):
                    return
                body = await self._body(request)
            except h11.RemoteProtocolError as error:
                if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                    await self._send(
                        refuse(InvalidMessage(f"The request is not HTTP/1.1: {error}.")), close=True
                    )
                return
            except MessageTooLarge as error:
                await self._send(refuse(error), close=True)
                return
            await self._send(await respond(request.method.decode(), request.target.decode("latin-1"), body))
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _next_event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                self._write(h11.InformationalResponse(status_code=100, headers=[]))
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                self._http.receive_data(await self._reader.read(_READ_SIZE_BYTES))

    async def _body(self, request: h11.Request) -> bytes:
        for name, value in request.headers:
            if name == b"content-length" and int(value) > self._limit_bytes:
                raise self._too_large()
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > self._limit_bytes:
                raise self._too_large()
        return bytes(body)

    def _too_large(self) -> MessageTooLarge:
        return MessageTooLarge(f"The request is larger than {self._limit_bytes} bytes.")

    async def _send(self, response: Response, *, close: bool = False) -> None:
        headers = [("content-type", "application/json"), ("content-length", str(len(response.body)))]
        if close:
            headers.append(("connection", "close"))
        self._write(h11.Response(status_code=response.status, headers=headers))
        self._write(h11.Data(data=response.body))
        self._write(h11.EndOfMessage())
        await self._writer.drain()

    def _write(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)


def _check_path(path: Path) -> None:
    if len(str(path).encode()) > _MAX_PATH_LENGTH:
        raise InvalidConfiguration(
            f"The socket's path has more than {_MAX_PATH_LENGTH} bytes.", remedy="Set a shorter socket_path."
        )
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise InvalidConfiguration(f"{path} exists and is no socket.", remedy="Set another socket_path.")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:  # nobody listens: its process is dead, and asyncio replaces the file
            return
    raise Conflict(f"Another process listens on {path}.", remedy="Stop it, or set another socket_path.")
