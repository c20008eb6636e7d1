"""HTTP/1.1 on the sockets of `agent.serving.listen`; `agent.serving.http_connection` is one conversation."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from agent import durable
from agent.serving.admission import ACCEPTED_IN_A_ROW, QUEUE, Admission
from agent.serving.http_connection import Connection, Surroundings
from agent.serving.http_messages import Refuse, Respond
from agent.serving.listen import check_path, loopback_socket, unix_socket

CLOSE_S = 0.2
"""How long connections have to send what is written."""


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
        self._port = port
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._around = Surroundings(respond, refuse, limit_bytes, Admission(limit_bytes), self._connections)

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
        loop = asyncio.get_running_loop()
        accept = partial(Connection, self._around, is_tcp=False)
        self._servers.append(await loop.create_unix_server(accept, sock=unix, backlog=ACCEPTED_IN_A_ROW))
        unix.listen(QUEUE)
        if bound is not None:
            accept = partial(Connection, self._around, is_tcp=True)
            self._servers.append(await loop.create_server(accept, sock=bound, backlog=ACCEPTED_IN_A_ROW))
            bound.listen(QUEUE)

    async def close(self) -> None:
        """Stop listening, end the connections and remove the socket file, if this server made it."""
        if not self._servers:
            return
        for server in self._servers:
            server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.close()
        if connections:
            _, unfinished = await asyncio.wait({each.ended for each in connections}, timeout=CLOSE_S)
            if unfinished:  # their peers do not take what was written
                for connection in connections:
                    connection.abort()
                await asyncio.wait(unfinished, timeout=CLOSE_S)
        self._path.unlink(missing_ok=True)
