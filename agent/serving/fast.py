"""The fast path: a second Unix socket, for applications that count microseconds.

`agent.serving.fast_frames` is its framing, `agent.serving.fast_connection` one conversation; here is who may
connect, how many, and how all of it ends. It listens in the event loop; every connection has a thread.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from agent import durable
from agent.hosting.host import Host
from agent.hosting.hosted import Hosted
from agent.serving.api import InferenceApi
from agent.serving.fast_connection import Connection, Services
from agent.serving.fast_frames import ANSWER, ERROR, Header, pack_error
from agent.serving.listen import check_path
from agent.threads import call_in_loop
from fleet.protocol.errors import Unavailable

log = logging.getLogger(__name__)

BACKLOG = 64
CHECK_INTERVAL_S = 1.0
ACCEPT_RETRY_S = 1.0
LOOP_TIMEOUT_S = 10.0


class FastServer:
    """Serves the fast path.

    Args:
        path: The socket's path.
        mode: Its permissions.
        services: What answers.
        connections: How many there may be at a time.
        timeout_s: How long one inference may take.
    """

    def __init__(
        self, path: Path, services: Services, *, mode: int, connections: int, timeout_s: float
    ) -> None:
        self._path = path
        self._mode = mode
        self._services = services
        self._limit = connections
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._connections: dict[Connection, threading.Thread] = {}
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._check: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    async def start(self) -> None:
        """Listen, unless no connections are allowed. A socket file whose process is dead is replaced.

        Raises:
            Conflict: A living process listens there.
            InvalidConfiguration: The path cannot be a socket.
            StorageError: The file cannot be made.
        """
        if not self._limit:
            return
        check_path(self._path)
        listener = socket.socket(socket.AF_UNIX)
        try:
            with durable.storage_errors(self._path):
                self._path.unlink(missing_ok=True)
                listener.bind(str(self._path))
                self._path.chmod(self._mode)  # before anybody can connect
                listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        listener.setblocking(False)
        self._listener = listener
        self._loop.add_reader(listener, self._accept)

    async def close(self, timeout_s: float) -> None:
        """Stop listening, answer what has come, end the connections and remove the socket file.

        Args:
            timeout_s: How long answers are waited for: a model may hang.
        """
        if self._listener is None:
            return
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        self._path.unlink(missing_ok=True)
        for connection in self._connections:
            connection.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._none_left.wait()
        for connection in self._connections:
            connection.cut()
        if self._check is not None:
            self._check.cancel()

    def _accept(self) -> None:
        listener = self._listener
        assert listener is not None
        try:
            sock, _ = listener.accept()
        except BlockingIOError:  # the client did not wait
            return
        except OSError as error:  # no descriptors are left
            log.warning("The fast path cannot take a connection: %s.", error)
            self._pause(listener)
            return
        if len(self._connections) >= self._limit:
            _refuse(sock, f"The fast path has {self._limit} connections, which are the most it may have.")
            return
        connection = Connection(sock, self._services)
        thread = threading.Thread(target=self._serve, args=(connection,), name="fast", daemon=True)
        self._connections[connection] = thread
        self._none_left.clear()
        try:
            thread.start()
        except RuntimeError:  # no threads are left
            self._forget(connection)
            _refuse(sock, "The device has no thread left for another connection.")
            return
        if self._check is None:
            self._check_later()

    def _pause(self, listener: socket.socket) -> None:
        """Accept nothing for a moment: the listener stays readable, and would keep the loop busy."""
        self._loop.remove_reader(listener)

        def go_on() -> None:
            if self._listener is listener:
                self._loop.add_reader(listener, self._accept)

        self._loop.call_later(ACCEPT_RETRY_S, go_on)

    def _serve(self, connection: Connection) -> None:
        """Be a connection's thread."""
        try:
            connection.serve()
        except Exception:
            log.exception("A connection of the fast path failed unexpectedly.")
        finally:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._forget, connection)

    def _forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if not self._connections:
            self._none_left.set()

    def _check_later(self) -> None:
        interval_s = min(CHECK_INTERVAL_S, self._timeout_s / 4)
        self._check = self._loop.call_later(interval_s, self._give_up_late)

    def _give_up_late(self) -> None:
        """Look after the threads that a model may have held up."""
        self._check = None
        for connection in self._connections:
            connection.give_up_late(self._timeout_s)
        if self._connections:
            self._check_later()


def services_of(
    host: Host, api: InferenceApi, take_window: Callable[[bytes], None], limit_bytes: int
) -> Services:
    """Return what the fast path shares with the local API; to be called in the event loop.

    Args:
        host: The models that answer.
        api: Knows why a model does not answer, and the predictions that can be labelled.
        take_window: Keeps what another process counted; called in a connection's thread.
        limit_bytes: Largest data of a request.
    """
    loop = asyncio.get_running_loop()

    def answering(model: str, version: int) -> Hosted:
        wanted = str(version) if version else None
        return call_in_loop(loop, lambda: api.answering(model, wanted), LOOP_TIMEOUT_S)

    def label(model: str | None, prediction_id: int, labels: list[int | str]) -> tuple[int, int]:
        counted = call_in_loop(loop, lambda: api.feedback.label(model, prediction_id, labels), LOOP_TIMEOUT_S)
        return counted.labelled, counted.correct

    return Services(host, answering, api.feedback.remember, label, take_window, limit_bytes)


def _refuse(sock: socket.socket, why: str) -> None:
    """Tell a client why it is not served, and hang up."""
    data = pack_error(Unavailable(why, remedy="Close others, or raise fast_connections."))
    with sock, suppress(OSError):
        sock.setblocking(False)
        sock.send(Header(ANSWER, ERROR, data_bytes=len(data)).pack() + data)
