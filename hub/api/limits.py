"""A limit on the size of requests, enforced before anybody's token is looked at or a byte is parsed.

Uploads have limits of their own, where they are received.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.protocol.errors import MessageTooLarge
from hub.api.errors import problem

MAX_BODY_SIZE_BYTES = 1024 * 1024
UPLOADS = re.compile(r"PUT /api/v1/datasets/[^/]*|POST /api/v1/models/[^/]*/versions/bundle")
"""The routes that receive files, as method and path."""


class BodyLimit:
    """ASGI middleware: answers 413 to a request whose body is too large, and reads no further.

    Args:
        app: What comes behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or UPLOADS.fullmatch(f"{scope['method']} {scope['path']}"):
            await self._app(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BODY_SIZE_BYTES:
                refusal = problem(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    code=MessageTooLarge.code,
                    detail=f"The request is larger than {MAX_BODY_SIZE_BYTES} bytes.",
                )
                await refusal(scope, receive, send)
                return
        await self._app(scope, _replayed(bytes(body), receive), send)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return what gives the body that was read already, and after it what comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
