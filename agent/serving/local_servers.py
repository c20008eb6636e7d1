"""An agent's two servers, HTTP and the fast protocol, over the same models: opened and closed together."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent import durable
from agent.drain import Drain
from agent.hosting.host import Host
from agent.life.models import Models
from agent.memory import measure_memory
from agent.serving.api import InferenceApi
from agent.serving.fast import FastServer, services_of
from agent.serving.http import HttpServer
from agent.serving.shared_memory import SharedMemory
from agent.settings import Settings
from agent.telemetry.reception import Reception

FOR_GROUP = 0o660

MEMORY_PER_REQUEST = 96
"""How many times the largest request memory has to hold. The dearest JSON (``[[],[],…``) takes 24 times its
size while it is read (measured); that may be a quarter of all."""


class LocalServers:
    """Both servers.

    Args:
        state: The state folder, where the sockets are unless the settings say otherwise.
        settings: Who may connect, and how much is taken.
        host: What answers.
        models: What each model is at.
        reception: Takes telemetry that programs with a model of their own counted.
    """

    def __init__(
        self, state: Path, settings: Settings, host: Host, models: Models, reception: Reception
    ) -> None:
        limit_bytes = min(settings.request_limit_bytes, measure_memory().limit_bytes // MEMORY_PER_REQUEST)
        shared = SharedMemory(limit_bytes) if settings.shared_memory else None
        api = InferenceApi(host, models.are_ready, models.states, limit_bytes, shared)
        self._is_for_group = settings.socket_access == "group"
        self._path = settings.socket(state)
        self._drain = Drain(api.answer)
        self._http = HttpServer(
            self._path, self._drain.respond, api.refuse, limit_bytes, port=settings.tcp_port
        )
        self._fast = FastServer(
            settings.fast_socket(state),
            services_of(host, api, reception.take, limit_bytes),
            mode=FOR_GROUP if self._is_for_group else durable.PRIVATE,
            connections=settings.fast_connections,
            timeout_s=settings.inference_timeout_s,
        )

    async def start(self) -> None:
        """Listen. A socket file whose process is dead is replaced.

        Raises:
            Conflict: A living process listens there.
            InvalidConfiguration: A path cannot be a socket, or the port cannot be used.
            StorageError: A file cannot be made.
        """
        await self._http.start()
        await self._fast.start()
        if self._is_for_group:
            with durable.storage_errors(self._path):
                self._path.chmod(FOR_GROUP)

    async def close(self, timeout_s: float) -> None:
        """Answer what was asked, take no more, end the connections and remove the socket files.

        Args:
            timeout_s: How long answers are waited for: a model may hang.
        """
        await asyncio.gather(self._drain.wait(timeout_s), self._fast.close(timeout_s))
        await self._http.close()
