"""HTTP/1.1: h11 for the protocol, asyncio for the bytes, on the sockets of `agent.serving.listen`.

One task for each connection, which it keeps alive between requests. A request's declared size is checked
before its body is read, and what is read is counted again, for a chunked body declares nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import h11

from agent import durable
from agent.serving.admission import ACCEPTED_IN_A_ROW, QUEUE, Admission
from agent.serving.listen import check_caller, check_path, loopback_socket, unix_socket
from fleet.protocol.errors import InvalidMessage, MessageTooLarge, MusterError, NotPermitted

log = logging.getLogger(__name__)

_READ_SIZE_BYTES = 64 * 1024
_JSON = (("content-type", "application/json"),)
IDLE_TIMEOUT_S = 120.0
"""How long a peer may neither send what it owes nor take what it asked for."""
LINGER_S = 2.0
"""How long a peer that was refused may still send, unheard."""


class Request(NamedTuple):
    """A request.

    Attributes:
        method: In upper case, as HTTP has it.
        target: Path and query, as sent.
        headers: Values by name in lower case; of several of a name the last.
        body: As sent, without its transfer coding.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Response(NamedTuple):
    """What a request is answered with.

    Attributes:
        status: HTTP status code.
        body: JSON, unless the headers say something else.
        headers: All but the length of the body.
    """

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = _JSON


Respond = Callable[[Request], Awaitable[Response]]
"""Answers a request; it must not raise."""

Refuse = Callable[[MusterError], Response]
"""Answers a request that could not be read."""


class HttpServer:
    """Serves on a Unix socket, and on loopback.

    Args:
        path: The socket's path.
        respond: Answers requests.
        refuse: Answers what is no request.
        limit_bytes: Largest body that is read.
        port: TCP port on loopback; 0 for none.
    """

    def __init__(
        self, path: Path, respond: Respond, refuse: Refuse, limit_bytes: int, *, port: int = 0
    ) -> None:
        self._path = path
        self._respond = respond
        self._refuse = refuse
        self._limit_bytes = limit_bytes
        self._port = port
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._admission = Admission()

    async def start(self) -> None:
        """Listen. A socket file whose process is dead is replaced.

        Raises:
            Conflict: A living process listens there.
            InvalidConfiguration: The path cannot be a socket, or the port cannot be used.
        """
        check_path(self._path)
        bound = loopback_socket(self._port) if self._port else None
        with durable.storage_errors(self._path):
            unix = unix_socket(self._path)
            self._path.chmod(durable.PRIVATE)
        accept = partial(self._accept, is_tcp=False)
        self._servers.append(await asyncio.start_unix_server(accept, sock=unix, backlog=ACCEPTED_IN_A_ROW))
        unix.listen(QUEUE)
        if bound is not None:
            accept = partial(self._accept, is_tcp=True)
            self._servers.append(await asyncio.start_server(accept, sock=bound, backlog=ACCEPTED_IN_A_ROW))
            bound.listen(QUEUE)

    async def close(self) -> None:
        """Stop listening, end the connections and remove the socket file."""
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=0.2)
        self._path.unlink(missing_ok=True)

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_tcp: bool
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._admission.enter(writer.transport)
        try:
            if is_tcp:
                writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            conversation = _Conversation(reader, writer, self._limit_bytes, is_tcp=is_tcp)
            await conversation.hold(partial(self._answer, writer.transport), self._refuse)
        except OSError:
            log.debug("A local connection ended early.")
            writer.transport.abort()  # closing would wait until the peer has taken what was sent
        except asyncio.CancelledError:
            log.debug("A local connection was ended.")
        finally:
            self._admission.leave(writer.transport)
            self._connections.discard(task)
            writer.close()

    async def _answer(self, connection: asyncio.WriteTransport, request: Request) -> Response:
        with self._admission.answering(connection):
            return await self._respond(request)


class _Conversation:
    """The requests of one connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit_bytes: int, *, is_tcp: bool
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._limit_bytes = limit_bytes
        self._is_tcp = is_tcp
        self._http = h11.Connection(h11.SERVER)

    async def hold(self, respond: Respond, refuse: Refuse) -> None:
        """Answer requests until either side ends the connection."""
        while True:
            try:
                event = await self._next_event()
                if not isinstance(event, h11.Request):
                    return
                request = await self._read(event)
            except h11.RemoteProtocolError as error:
                if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                    answer = refuse(InvalidMessage(f"The request is not HTTP/1.1: {error}."))
                    await self._send(answer._replace(status=error.error_status_hint), close=True)
                return
            except (MessageTooLarge, NotPermitted) as error:
                await self._send(refuse(error), close=True)
                return
            await self._send(await respond(request), has_body=request.method != "HEAD")
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

    async def _read(self, event: h11.Request) -> Request:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        if self._is_tcp:
            check_caller(headers)
        if int(headers.get("content-length", "0")) > self._limit_bytes:
            raise self._too_large()
        body = bytearray()
        while isinstance(data := await self._next_event(), h11.Data):
            body += data.data
            if len(body) > self._limit_bytes:
                raise self._too_large()
        return Request(event.method.decode(), event.target.decode("latin-1"), headers, bytes(body))

    def _too_large(self) -> MessageTooLarge:
        return MessageTooLarge(f"The request is larger than {self._limit_bytes} bytes.")

    async def _send(self, response: Response, *, close: bool = False, has_body: bool = True) -> None:
        headers = [*response.headers, ("content-length", str(len(response.body)))]
        if close:
            headers.append(("connection", "close"))
        self._write(h11.Response(status_code=response.status, headers=headers))
        if has_body:
            self._write(h11.Data(data=response.body))
        self._write(h11.EndOfMessage())
        async with asyncio.timeout(IDLE_TIMEOUT_S):
            await self._writer.drain()
        if close:
            await self._linger()

    async def _linger(self) -> None:
        """Throw away what still comes: closing over it would reset the connection, and the answer be lost."""
        self._writer.write_eof()
        async with asyncio.timeout(LINGER_S):
            while await self._reader.read(_READ_SIZE_BYTES):
                pass

    def _write(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)
