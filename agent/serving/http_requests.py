"""Bytes in, requests out: httptools (llhttp) parses HTTP/1.1, and what it cannot know is bounded here.

::

    bytes ─► held ─► slices ─► parser ─► asked
                └─ a known head, then its body ─┘

Nothing is read or written here; `agent.serving.http_connection` brings the bytes and takes the requests.

Clients repeat the heads of their requests byte for byte. One that is the same as the last, where a request
begins, is not parsed again: the parser would find the same in it. Its body is taken by its length.

The parser would gather a header without end, so the bytes that lead to nothing are counted; and of one read
it would deliver all requests, so it is fed a slice at a time. What it lets pass and HTTP or we do not is
refused here: two hosts, a transfer coding other than ``chunked`` alone, versions other than 1.0 and 1.1.
Everything else that makes two readers disagree where a request ends (``Content-Length`` twice, or beside
``Transfer-Encoding``, odd numbers, lines without CR) it refuses itself.

Sources: RFC 9110, RFC 9112; for what is refused section 6.3 and chapter 11 of the latter.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import httptools

from agent.serving.caller import Caller
from agent.serving.http_messages import Refuse, Request, Response
from agent.serving.listen import check_caller
from fleet.protocol.errors import InvalidMessage, MessageTooLarge, MusterError, NotPermitted

HEAD_LIMIT_BYTES = 16 * 1024
"""How many bytes may come without any of a body among them."""
SLICE_BYTES = 4096
"""How much the parser is fed at a time, where requests may end in it."""
_NO_HEADER_TWICE = frozenset({"host", "transfer-encoding"})
_NOT_PLAIN = frozenset({"transfer-encoding", "expect", "upgrade"})
_HEAD_END = b"\r\n\r\n"


class Asked(NamedTuple):
    """A request in the queue, or what it is refused with.

    Attributes:
        request: The request; None if it is refused.
        refusal: The answer to what is no request.
        is_last: Whether the connection ends after it.
    """

    request: Request | None
    refusal: Response | None
    is_last: bool


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


class RequestReader:
    """Reads the requests of one connection.

    Args:
        caller: Who sends them.
        refuse: Answers what is no request.
        limit_bytes: Largest body that is read.
        is_tcp: Whether they come over TCP, where web pages may be the callers.
    """

    def __init__(self, caller: Caller, refuse: Refuse, limit_bytes: int, *, is_tcp: bool) -> None:
        self.asked: deque[Asked] = deque()
        """What was read, for the connection to take."""
        self.is_done = False
        """Whether nothing of what still comes is a request."""
        self._caller = caller
        self._refusal_of = refuse
        self._limit_bytes = limit_bytes
        self._is_tcp = is_tcp
        self._parser = httptools.HttpRequestParser(self)
        self._held = b""
        self._known: _Known | None = None
        self._body_of: _Known | None = None  # whose body is read past the parser
        self._is_awaited = False  # the peer sends the body only when told to go on
        self._messages = 0
        self._bare_bytes = 0  # since a body's bytes or a request's end were among them
        self.on_message_begin()
        self.is_reading = False
        """Whether a request has begun and not ended."""

    # The connection's side ---------------------------------------------------

    def take(self, data: bytes) -> None:
        """Hold bytes that have come until they are read."""
        self._held = self._held + data if self._held else data

    def read_on(self) -> bool:
        """Read a part of what is held; return whether there was anything to read."""
        if not self._held or self.is_done:
            return False
        if self._body_of is not None:
            self._take_body(self._body_of)
        elif self._known is not None and not self.is_reading and self._held.startswith(self._known.head):
            self._begin_body(self._known)
        else:
            size = max(SLICE_BYTES, self._missing_bytes)
            data, self._held = self._held[:size], self._held[size:]
            self._feed(data)
        return True

    def awaits_word(self) -> bool:
        """Return whether the peer sends its body only when told to go on; true once a request."""
        is_awaited = self._is_awaited
        self._is_awaited = False
        return is_awaited

    @property
    def holds_some(self) -> bool:
        """Whether anything waits here: bytes that are not read yet, or a request that has not come whole."""
        return bool(self._held) or self.is_reading

    @property
    def kept_bytes(self) -> int:
        """How many bytes of that wait."""
        return len(self._held) + (self._body_bytes if self.is_reading else 0)

    def cut_off(self) -> None:
        """Refuse what has begun: no more comes."""
        self.is_reading = False
        self._refuse(InvalidMessage("The request is not HTTP/1.1: it is cut off."))

    def stop(self) -> None:
        """Read no more, and let go what is held."""
        self.is_done = True
        self._held = b""

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
        self.is_reading = True
        self._messages += 1

    def on_url(self, part: bytes) -> None:
        """Gather the target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those behind a chunked body count for nothing."""
        if self.is_done or self._is_head_read:
            return
        key = name.decode("latin-1").lower()
        if key in _NO_HEADER_TWICE and key in self._headers:
            self._refuse(InvalidMessage(f"The request has two headers {key}."))
        self._headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Check what can be checked before the body comes."""
        self._is_head_read = True
        if self.is_done:
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
        if not self.is_done:
            self._body_bytes += len(part)
            self._missing_bytes -= len(part)
            self._check_size(self._body_bytes)
            self._body.append(part)

    def on_message_complete(self) -> None:
        """Queue the request."""
        self._bare_bytes = 0
        self.is_reading = False
        if self.is_done:
            return
        self._is_awaited = False
        self.is_done = self._is_last
        body, self._body = self._body[0] if len(self._body) == 1 else b"".join(self._body), []
        self.asked.append(Asked(self._request(body), None, self._is_last))

    # In between --------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        messages, is_fresh = self._messages, not self.is_reading
        self._bare_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # not done here; whatever follows is another protocol's
            self.asked.append(self.asked.pop()._replace(is_last=True))
            self.is_done = True
        except httptools.HttpParserError as error:
            self._refuse(InvalidMessage(f"The request is not HTTP/1.1: {error}."))
        if is_fresh and self._messages == messages + 1 and self._is_head_read and not self.is_done:
            self._know(data)
        if self._bare_bytes > HEAD_LIMIT_BYTES:
            self._refuse(InvalidMessage(f"The request's head is larger than {HEAD_LIMIT_BYTES} bytes."), 431)

    def _know(self, data: bytes) -> None:
        """Keep the head of a request that has begun, alone, with the bytes that the parser was just fed."""
        headers, end = self._headers, data.find(_HEAD_END) + len(_HEAD_END)
        is_plain = "content-length" in headers and not headers.keys() & _NOT_PLAIN
        if is_plain and not self._is_last and end == len(data) - self._body_bytes:
            self._known = _Known(data[:end], self._request(b""), int(headers["content-length"]))

    def _begin_body(self, known: _Known) -> None:
        """Read a request whose head came before without the parser, which would find the same in it."""
        end = len(known.head) + known.body_bytes
        if len(self._held) == end:  # mostly
            body, self._held = self._held[len(known.head) :], b""
            self.asked.append(Asked(known.request._replace(body=body), None, False))
            return
        self._held = self._held[len(known.head) :]
        self._body_of, self._body, self._body_bytes = known, [], 0
        self.is_reading = True

    def _take_body(self, known: _Known) -> None:
        missing_bytes = known.body_bytes - self._body_bytes
        part, self._held = self._held[:missing_bytes], self._held[missing_bytes:]
        self._body.append(part)
        self._body_bytes += len(part)
        if self._body_bytes == known.body_bytes:
            self._body_of, self.is_reading = None, False
            body = b"".join(self._body)
            self._body = []
            self.asked.append(Asked(known.request._replace(body=body), None, False))

    def _request(self, body: bytes) -> Request:
        method, target = self._parser.get_method().decode("latin-1"), self._target.decode("latin-1")
        return Request(method, target, self._headers, body, self._caller)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._limit_bytes:
            self._refuse(MessageTooLarge(f"The request is larger than {self._limit_bytes} bytes."))

    def _refuse(self, error: MusterError, status: int | None = None) -> None:
        """Let an error be the last answer; what was asked before is still answered."""
        if self.is_done:
            return
        self.is_done = True
        refusal = self._refusal_of(error)
        self.asked.append(Asked(None, refusal if status is None else refusal._replace(status=status), True))
