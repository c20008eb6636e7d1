"""One connection of HTTP/1.1: httptools (llhttp) reads the requests, asyncio brings and takes the bytes.

::

    bytes ─► slices ─► parser ─► queue ─► respond ─► bytes
                │                  │
                └ held back while ─┘ an answer is waited for, or the peer does not take what was written

Clients repeat the heads of their requests byte for byte. One that is the same as the last, where a request
begins, is not parsed again: the parser would find the same in it. Its body is taken by its length.

An answer that is there at once is written before the call returns that brought the request: no task, no turn
of the event loop. Answers leave in the order of the requests.

What the parser cannot know is bounded here: it would gather a header without end, so the bytes that lead to
nothing are counted; and of one read it would deliver all requests, so it is fed a slice at a time. What it
lets pass and HTTP or we do not is refused here: two hosts, a transfer coding other than ``chunked`` alone,
versions other than 1.0 and 1.1. Everything else that makes two readers disagree where a request ends
(``Content-Length`` twice, or beside ``Transfer-Encoding``, odd numbers, lines without CR) it refuses itself.

Sources: RFC 9110, RFC 9112; for what is refused section 6.3 and chapter 11 of the latter.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple

import httptools

from agent.serving.admission import Admission
from agent.serving.caller import Caller
from agent.serving.listen import check_caller
from fleet.protocol.errors import InvalidMessage, MessageTooLarge, MusterError, NotPermitted

log = logging.getLogger(__name__)

IDLE_TIMEOUT_S = 120.0
"""How long a peer may neither send what it owes nor take what it asked for."""
LINGER_S = 2.0
"""How long a peer that was refused may still send, unheard."""
HEAD_LIMIT_BYTES = 16 * 1024
"""How many bytes may come without any of a body among them."""
SLICE_BYTES = 4096
"""How much the parser is fed at a time, where requests may end in it."""
_NO_HEADER_TWICE = frozenset({"host", "transfer-encoding"})
_NOT_PLAIN = frozenset({"transfer-encoding", "expect", "upgrade"})
_HEAD_END = b"\r\n\r\n"
_JSON = (("content-type", "application/json"),)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Request(NamedTuple):
    """A request.

    Attributes:
        method: In upper case, as HTTP has it.
        target: Path and query, as sent.
        headers: Values by name in lower case; of several of a name the last.
        body: As sent, without its transfer coding.
        caller: Who asks; None if it came over no connection.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    caller: Caller | None = None


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


Respond = Callable[[Request], Response | Coroutine[Any, Any, Response]]
"""Answers a request, at once if it can; it must not raise."""

Refuse = Callable[[MusterError], Response]
"""Answers a request that could not be read."""


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


class _Known(NamedTuple):
    """The head of a request that came before, and what the parser made of it.

    Only heads of requests that the connection goes on after, with a body whose length they say.

    Attributes:
        head: Its bytes.
        request: The request, without its body.
        body_bytes: How long the body is.
    """

    head: bytes
    request: Request
    body_bytes: int


class _Asked(NamedTuple):
    """A request in the queue, or what it is refused with.

    Attributes:
        request: The request; None if it is refused.
        refusal: The answer to what is no request.
        is_last: Whether the connection ends after it.
    """

    request: Request | None
    refusal: Response | None
    is_last: bool


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
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[_Asked] = deque()
        self._held = b""
        self._answering: asyncio.Future[Response] | None = None
        self._is_writable = True
        self._is_refused = False  # nothing of what comes is a request any more
        self._has_ended = False  # the peer sends no more
        self._is_closing = False  # the last answer is written
        self._is_keeping = False  # admission was told of bytes
        self._known: _Known | None = None
        self._body_of: _Known | None = None  # whose body is read past the parser
        self._messages = 0
        self._bare_bytes = 0
        self._active_s = self._loop.time()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done when it is over."""
        self.on_message_begin()
        self._is_reading = False

    # The transport's side ----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._caller = Caller(transport.get_extra_info("socket"))
        self._around.connections.add(self)
        self._around.admission.enter(transport)
        self._timer = self._loop.call_later(IDLE_TIMEOUT_S, self._check_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; an answer that is still computed goes nowhere."""
        if exc is not None:
            log.debug("A local connection ended early: %s.", exc)
        self._is_closing = True
        self._queue.clear()
        self._timer.cancel()
        self._around.admission.leave(self._transport)
        self._around.connections.discard(self)
        self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Read what has come, and answer the requests in it."""
        if not self._is_refused:
            self._active_s = self._loop.time()
            self._held = self._held + data if self._held else data
            self._go_on()
            if self._held or self._is_reading or self._is_keeping:
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

    # The parser's side -------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._missing_bytes = 0
        self._is_last = False
        self._is_awaited = False
        self._is_head_read = False
        self._is_reading = True
        self._messages += 1

    def on_url(self, part: bytes) -> None:
        """Gather the target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those behind a chunked body count for nothing."""
        if self._is_refused or self._is_head_read:
            return
        key = name.decode("latin-1").lower()
        if key in _NO_HEADER_TWICE and key in self._headers:
            self._refuse(InvalidMessage(f"The request has two headers {key}."))
        self._headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Check what can be checked before the body comes."""
        self._is_head_read = True
        if self._is_refused:
            return
        headers, version = self._headers, self._parser.get_http_version()
        coding = headers.get("transfer-encoding")
        if version not in {"1.0", "1.1"}:
            self._refuse(InvalidMessage(f"HTTP {version:.10} is not spoken here."), 505)
        elif version == "1.1" and "host" not in headers:
            self._refuse(InvalidMessage("The request is not HTTP/1.1: it has no header Host."))
        elif coding is not None and (version == "1.0" or coding.strip().lower() != "chunked"):
            self._refuse(
                InvalidMessage("No transfer coding but chunked is known here, and none before HTTP/1.1."), 501
            )
        else:
            self._is_last = not self._parser.should_keep_alive()
            self._missing_bytes = int(headers.get("content-length", "0"))
            try:
                if self._is_tcp:
                    check_caller(headers)
            except NotPermitted as error:
                self._refuse(error)
            self._check_size(self._missing_bytes)
            if version == "1.1" and "expect" in headers:
                self._is_awaited = headers["expect"].lower() == "100-continue"

    def on_chunk_header(self) -> None:
        """Note that bytes lead to something."""
        self._bare_bytes = 0

    def on_body(self, part: bytes) -> None:
        """Gather the body."""
        self._bare_bytes = 0
        self._is_awaited = False
        if not self._is_refused:
            self._body_bytes += len(part)
            self._missing_bytes -= len(part)
            self._check_size(self._body_bytes)
            self._body.append(part)

    def on_message_complete(self) -> None:
        """Queue the request."""
        self._bare_bytes = 0
        self._is_reading = False
        if self._is_refused:
            return
        self._is_awaited = False
        self._is_refused = self._is_last
        body, self._body = self._body[0] if len(self._body) == 1 else b"".join(self._body), []
        method = self._parser.get_method().decode("latin-1")
        request = Request(method, self._target.decode("latin-1"), self._headers, body, self._caller)
        self._queue.append(_Asked(request, None, self._is_last))

    # In between --------------------------------------------------------------

    def _go_on(self) -> None:
        """Read and answer as far as it goes without waiting."""
        while self._answering is None and self._is_writable and not self._is_closing:
            if self._queue:
                self._answer(self._queue.popleft())
            elif not self._held or self._is_refused:
                break
            elif self._body_of is not None:
                self._take_body(self._body_of)
            elif self._known is not None and not self._is_reading and self._held.startswith(self._known.head):
                self._begin_body(self._known)
            else:
                size = max(SLICE_BYTES, self._missing_bytes)
                data, self._held = self._held[:size], self._held[size:]
                self._feed(data)
        else:
            if not self._is_refused:
                self._transport.pause_reading()
            return
        self._transport.resume_reading()
        if self._is_awaited:
            self._is_awaited = False
            self._transport.write(_CONTINUE)
        if self._has_ended and self._is_reading:
            self._is_reading = False
            self._refuse(InvalidMessage("The request is not HTTP/1.1: it is cut off."))
            self._go_on()
        elif self._has_ended:
            self._end()

    def _tell_kept(self) -> None:
        """Tell how many bytes wait here: of a request that has not come whole, of answers not taken."""
        body_bytes = self._body_bytes if self._is_reading else 0
        kept_bytes = len(self._held) + body_bytes + self._transport.get_write_buffer_size()
        self._is_keeping = kept_bytes > 0
        self._around.admission.keep(self._transport, kept_bytes)

    def _begin_body(self, known: _Known) -> None:
        """Read a request whose head came before without the parser, which would find the same in it."""
        end = len(known.head) + known.body_bytes
        if len(self._held) == end:  # mostly
            body, self._held = self._held[len(known.head) :], b""
            self._queue.append(_Asked(known.request._replace(body=body), None, False))
            return
        self._held = self._held[len(known.head) :]
        self._body_of, self._body, self._body_bytes = known, [], 0
        self._is_reading = True

    def _take_body(self, known: _Known) -> None:
        missing_bytes = known.body_bytes - self._body_bytes
        part, self._held = self._held[:missing_bytes], self._held[missing_bytes:]
        self._body.append(part)
        self._body_bytes += len(part)
        if self._body_bytes == known.body_bytes:
            self._body_of, self._is_reading = None, False
            body = b"".join(self._body)
            self._body = []
            self._queue.append(_Asked(known.request._replace(body=body), None, False))

    def _know(self, data: bytes, headers: dict[str, str]) -> None:
        """Keep the head of a request that has begun, alone, with the bytes that the parser was just fed."""
        end = data.find(_HEAD_END) + len(_HEAD_END)
        is_plain = "content-length" in headers and not headers.keys() & _NOT_PLAIN
        if is_plain and not self._is_last and end == len(data) - self._body_bytes:
            method, target = self._parser.get_method().decode("latin-1"), self._target.decode("latin-1")
            request = Request(method, target, headers, b"", self._caller)
            self._known = _Known(data[:end], request, int(headers["content-length"]))

    def _feed(self, data: bytes) -> None:
        messages, is_fresh = self._messages, not self._is_reading
        self._bare_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # not done here; whatever follows is another protocol's
            self._queue.append(self._queue.pop()._replace(is_last=True))
            self._is_refused = True
        except httptools.HttpParserError as error:
            self._refuse(InvalidMessage(f"The request is not HTTP/1.1: {error}."))
        if is_fresh and self._messages == messages + 1 and self._is_head_read and not self._is_refused:
            self._know(data, self._headers)
        if self._bare_bytes > HEAD_LIMIT_BYTES:
            self._refuse(InvalidMessage(f"The request's head is larger than {HEAD_LIMIT_BYTES} bytes."), 431)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._around.limit_bytes:
            limit_bytes = self._around.limit_bytes
            self._refuse(MessageTooLarge(f"The request is larger than {limit_bytes} bytes."))

    def _refuse(self, error: MusterError, status: int | None = None) -> None:
        """Let an error be the last answer; what was asked before is still answered."""
        if self._is_refused:
            return
        self._is_refused = True
        refusal = self._around.refuse(error)
        self._queue.append(_Asked(None, refusal if status is None else refusal._replace(status=status), True))

    def _answer(self, asked: _Asked) -> None:
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

    def _answered(self, done: asyncio.Future[Response], asked: _Asked) -> None:
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

    def _write(self, response: Response, asked: _Asked) -> None:
        head = _head(response.status, response.headers, asked.is_last) + b"%d\r\n\r\n" % len(response.body)
        has_body = asked.request is None or asked.request.method != "HEAD"
        self._transport.write(head + response.body if has_body else head)
        if asked.is_last:
            self._end()

    def _end(self) -> None:
        """Send no more. What still comes is thrown away: to close over it would lose the answer."""
        if self._is_closing:
            return
        self._is_closing = self._is_refused = True
        self._held = b""
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


@lru_cache(maxsize=256)
def _head(status: int, headers: tuple[tuple[str, str], ...], is_last: bool) -> bytes:
    """Return the head of a response up to the number of the body's bytes."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    if is_last:
        lines.append("connection: close")
    return "\r\n".join([*lines, "content-length: "]).encode("latin-1")
