"""One connection of HTTP/1.1: asyncio brings and takes the bytes, answers leave in the order of the requests.

::

    bytes ─► RequestReader ─► asked ─► respond ─► bytes
                   │            │
                   └ held back ─┘ while an answer is waited for, or the peer does not take what was written

An answer that is there at once is written before the call returns that brought the request: no task, no turn
of the event loop.

Sources: RFC 9112, chapter 9, for how a connection ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from agent.serving.admission import Admission
from agent.serving.caller import Caller
from agent.serving.http_messages import CONTINUE, Refuse, Respond, Response, encoded
from agent.serving.http_requests import Asked, RequestReader

log = logging.getLogger(__name__)

IDLE_TIMEOUT_S = 120.0
"""How long a peer may neither send what it owes nor take what it asked for."""
LINGER_S = 2.0
"""How long a peer that was refused may still send, unheard."""


class Surroundings(NamedTuple):
    """What the connections of a server share.

    Attributes:
        respond: Answers requests.
        refuse: Answers what is no request.
        limit_bytes: Largest body that is read.
        admission: Which connections are held.
        connections: Those that are open.
    """

    respond: Respond
    refuse: Refuse
    limit_bytes: int
    admission: Admission
    connections: set[Connection]


class Connection(asyncio.Protocol):
    """One connection, from its beginning to its end.

    Args:
        around: What it shares with others.
        is_tcp: Whether it came over TCP, where web pages may be the callers.
    """

    def __init__(self, around: Surroundings, *, is_tcp: bool) -> None:
        self._around = around
        self._is_tcp = is_tcp
        self._loop = asyncio.get_running_loop()
        self._answering: asyncio.Future[Response] | None = None
        self._is_writable = True
        self._has_ended = False  # the peer sends no more
        self._is_closing = False  # the last answer is written
        self._is_keeping = False  # admission was told of bytes
        self._active_s = self._loop.time()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done when it is over."""

    # The transport's side ----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        around, caller = self._around, Caller(transport.get_extra_info("socket"))
        self._reader = RequestReader(caller, around.refuse, around.limit_bytes, is_tcp=self._is_tcp)
        self._around.connections.add(self)
        self._around.admission.enter(transport)
        self._timer = self._loop.call_later(IDLE_TIMEOUT_S, self._check_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; an answer that is still computed goes nowhere."""
        if exc is not None:
            log.debug("A local connection ended early: %s.", exc)
        self._is_closing = True
        self._reader.asked.clear()
        self._timer.cancel()
        self._around.admission.leave(self._transport)
        self._around.connections.discard(self)
        self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Read what has come, and answer the requests in it."""
        reader = self._reader
        if not reader.is_done:
            self._active_s = self._loop.time()
            reader.take(data)
            self._go_on()
            if reader.holds_some or self._is_keeping:
                self._tell_kept()

    def eof_received(self) -> bool:
        """Answer what came before the end; the transport stays open for that."""
        if self._is_closing:
            return False
        self._has_ended = True
        self._go_on()
        return True

    def pause_writing(self) -> None:
        """Answer no more until the peer takes what there is."""
        self._is_writable = False
        self._tell_kept()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_writable = True
        self._active_s = self._loop.time()
        self._go_on()
        self._tell_kept()

    def close(self) -> None:
        """End the connection; what is written is still sent."""
        if self._answering is not None:
            self._answering.cancel()
        self._transport.close()

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()

    # In between --------------------------------------------------------------

    def _go_on(self) -> None:
        """Read and answer as far as it goes without waiting."""
        reader, asked = self._reader, self._reader.asked
        while self._answering is None and self._is_writable and not self._is_closing:
            if asked:
                self._answer(asked.popleft())
            elif not reader.read_on():
                break
        else:
            if not reader.is_done:
                self._transport.pause_reading()
            return
        self._transport.resume_reading()
        if reader.awaits_word():
            self._transport.write(CONTINUE)
        if self._has_ended and reader.is_reading:
            reader.cut_off()
            self._go_on()
        elif self._has_ended:
            self._end()

    def _tell_kept(self) -> None:
        """Tell how many bytes wait here: of a request that has not come whole, of answers not taken."""
        kept_bytes = self._reader.kept_bytes + self._transport.get_write_buffer_size()
        self._is_keeping = kept_bytes > 0
        self._around.admission.keep(self._transport, kept_bytes)

    def _answer(self, asked: Asked) -> None:
        if asked.request is None:
            assert asked.refusal is not None
            self._write(asked.refusal, asked)
            return
        answer = self._around.respond(asked.request)
        if isinstance(answer, Response):
            self._around.admission.touch(self._transport)
            self._write(answer, asked)
            return
        self._around.admission.begin_answer(self._transport)
        self._answering = asyncio.ensure_future(answer)
        self._answering.add_done_callback(lambda done: self._answered(done, asked))

    def _answered(self, done: asyncio.Future[Response], asked: Asked) -> None:
        self._answering = None
        self._active_s = self._loop.time()
        if self._transport.is_closing():
            return
        self._around.admission.end_answer(self._transport)
        if done.cancelled():
            self._transport.close()
            return
        self._write(done.result(), asked)
        self._go_on()

    def _write(self, response: Response, asked: Asked) -> None:
        has_body = asked.request is None or asked.request.method != "HEAD"
        self._transport.write(encoded(response, is_last=asked.is_last, has_body=has_body))
        if asked.is_last:
            self._end()

    def _end(self) -> None:
        """Send no more. What still comes is thrown away: to close over it would lose the answer."""
        if self._is_closing:
            return
        self._is_closing = True
        self._reader.stop()
        if self._has_ended:
            self._transport.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()
        self._timer.cancel()
        self._timer = self._loop.call_later(LINGER_S, self._stop_lingering)

    def _stop_lingering(self) -> None:
        """End the connection, unless the peer is still taking its answer."""
        if self._transport.get_write_buffer_size() and self._loop.time() < self._active_s + IDLE_TIMEOUT_S:
            self._timer = self._loop.call_later(LINGER_S, self._stop_lingering)
        else:
            self._transport.abort()

    def _check_idle(self) -> None:
        """End the connection if the peer has owed something for long."""
        now_s = self._loop.time()
        if self._answering is not None:
            self._active_s = now_s
        left_s = self._active_s + IDLE_TIMEOUT_S - now_s
        if left_s <= 0:
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(left_s, self._check_idle)
