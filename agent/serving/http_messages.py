"""What is asked and answered over HTTP/1.1 here, and the head of an answer as bytes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple

from agent.serving.caller import Caller
from fleet.protocol.errors import MusterError

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_JSON = (("content-type", "application/json"),)


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


def encoded(response: Response, *, is_last: bool, has_body: bool) -> bytes:
    """Return a response as it is sent.

    Args:
        response: What is answered.
        is_last: Whether the connection ends after it.
        has_body: Whether the body is sent too; an answer to HEAD has its length alone.
    """
    head = _head(response.status, response.headers, is_last) + b"%d\r\n\r\n" % len(response.body)
    return head + response.body if has_body else head


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
