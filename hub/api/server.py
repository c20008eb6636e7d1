"""The HTTP server under the API: it tells where it listens as soon as it does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

import uvicorn
from fastapi import FastAPI

from fleet.protocol.errors import Unavailable

_REQUEST_GRACE_S = 3
"""How long requests may take to end when the hub is told to stop."""
_POLL_S = 0.02


async def serve_http(app: FastAPI, host: str, port: int, on_listening: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        app: What answers.
        host: The address to listen on.
        port: The TCP port; 0 for any that is free.
        on_listening: Called once, with the URL, when the server listens.

    Raises:
        Unavailable: It cannot listen there.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=_REQUEST_GRACE_S,
    )
    server = uvicorn.Server(config)
    async with _announced(server, on_listening):
        try:
            await server.serve()
        except SystemExit as error:  # uvicorn's way to say that it cannot listen
            raise Unavailable(
                f"The API cannot listen on {host}:{port}.",
                remedy="Is another hub running? Change http_port in hub.toml.",
            ) from error


@contextlib.asynccontextmanager
async def _announced(server: uvicorn.Server, on_listening: Callable[[str], None]) -> AsyncGenerator[None]:
    task = asyncio.get_running_loop().create_task(_announce(server, on_listening))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _announce(server: uvicorn.Server, on_listening: Callable[[str], None]) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(_POLL_S)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    on_listening(f"http://{host}:{port}")
