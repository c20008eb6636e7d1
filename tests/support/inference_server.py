"""The agent's local API with small models, on real sockets: all of the agent that answers applications."""

from __future__ import annotations

import asyncio
import http.client
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.hosting.host import Host
from agent.serving.api import InferenceApi
from agent.serving.fast import FastServer, services_of
from agent.serving.http import HttpServer
from agent.serving.shared_memory import SharedMemory
from fleet.protocol.messages import ModelState
from tests.support.agent_bundles import (
    TFLITE_VARIANT,
    build,
    build_halving,
    build_tabular,
    load_bundle,
)
from tests.support.agent_device import SAMPLE, Reply, UnixConnection
from tests.support.ports import ReservedPort

LIMIT_BYTES = 20_000
FAST_LIMIT_BYTES = 200_000
LOADING = ModelState("later", None, None, None, "DOWNLOADING", None)
"""A model that the device has and that does not answer."""


def tensor(**changes: Any) -> dict[str, Any]:
    """Return the input of the model of four pixels, as JSON has it."""
    return {"name": "pixels", "shape": [1, 4], "datatype": "FP32", "data": SAMPLE, **changes}


class Api:
    """A server with some models, in a thread of its own.

    Args:
        folder: Where its sockets and models go.
        shared_memory: Whether clients may share memory.
    """

    def __init__(self, folder: Path, *, shared_memory: bool = False) -> None:
        self._shared = SharedMemory(LIMIT_BYTES) if shared_memory else None
        self.path = folder / "s"
        self.fast_path = folder / "f"
        self.host = Host()
        self.ready = True
        self.windows: list[bytes] = []
        """What other processes handed over."""
        self.loop = asyncio.new_event_loop()
        self.faults: list[dict[str, Any]] = []
        """What nobody caught in the server."""
        self.loop.set_exception_handler(lambda _loop, fault: self.faults.append(fault))
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.run(self._start(folder))

    async def _start(self, folder: Path) -> None:
        for bundle in (
            build(1, negative_gives_nan=True),
            build(1, model="lite").ordering(TFLITE_VARIANT),
            build_tabular(),
            build_halving(),
        ):
            name = bundle.manifest.model
            (folder / name).mkdir()
            self.host.put(name, await load_bundle(bundle, folder / name))
        api = InferenceApi(self.host, lambda: self.ready, lambda: (LOADING,), LIMIT_BYTES, self._shared)
        self.respond = api.respond
        self.server = HttpServer(self.path, api.respond, api.refuse, LIMIT_BYTES, port=self.port)
        await self.server.start()
        self.fast = await self.start_fast()

    async def start_fast(self, *, connections: int = 4, timeout_s: float = 5.0) -> FastServer:
        """Start a fast path, on the same socket every time."""
        api = InferenceApi(self.host, lambda: self.ready, lambda: (LOADING,), LIMIT_BYTES)
        services = services_of(self.host, api, self.windows.append, FAST_LIMIT_BYTES)
        server = FastServer(
            self.fast_path, services, mode=0o600, connections=connections, timeout_s=timeout_s
        )
        await server.start()
        return server

    def run(self, work: Any) -> Any:
        """Run a coroutine in the server's loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def close(self) -> None:
        """End the server."""
        self.run(self.fast.close(1.0))
        self.run(self.server.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def call(self, method: str, path: str, body: Any = None) -> Reply:
        """Make one request of JSON."""
        status, _, answer = self.send(method, path, b"" if body is None else msgspec.json.encode(body))
        return Reply(status, msgspec.json.decode(answer))

    def send(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Make one request of bytes; ``_`` in a header's name stands for ``-``."""
        connection = UnixConnection(self.path)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, named)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Send bytes, end the sending, and return everything that comes."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.path))
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            received = b""
            while part := sock.recv(65536):
                received += part
            return received


@pytest.fixture(name="api", scope="module")
def api_fixture() -> Iterator[Api]:
    """A server for one test module, which imports this; nothing in it may have gone uncaught."""
    with tempfile.TemporaryDirectory() as folder:  # a test's own folder has too long a path for a socket
        api = Api(Path(folder))
        yield api
        api.close()
        assert api.faults == []
