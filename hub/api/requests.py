"""Every request is counted, timed and traced, under the template of its route: never under its path.

A path has names of devices and models in it, of which there are any number; the templates are as many as
there are routes. What leads to no route counts as `NO_ROUTE`.
"""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.metrics import Instruments
from hub.tracing import Span, span

NO_ROUTE = "none"
GONE = "gone"
"""In place of a status: whoever asked did not wait for the answer."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class MeasuredRequests:
    """ASGI middleware: measures each request, whatever answers it.

    Args:
        app: What comes behind it.
        instruments: Keep what is measured.
        prefix: Of most routes, see `route_of`.
    """

    def __init__(self, app: ASGIApp, instruments: Instruments, prefix: str) -> None:
        self._app = app
        self._instruments = instruments
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with span("request") as current:
            await self._measured(scope, receive, send, current)

    async def _measured(self, scope: Scope, receive: Receive, send: Send, current: Span) -> None:
        status = GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = f"{message['status'] // 100}xx"
            await send(message)

        started_s = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = "5xx"  # which Starlette's outermost layer answers
            raise
        finally:
            method, route = method_of(scope), route_of(scope, self._prefix)
            current.update_name(f"{method} {route}")
            current.set_attribute("http.request.method", method)
            current.set_attribute("http.route", route)
            current.set_attribute("muster.status_class", status)
            self._instruments.requests.labels(method, route, status).inc()
            self._instruments.request_s.labels(route).observe(time.perf_counter() - started_s)


def method_of(scope: Scope) -> str:
    """Return the request's method, as one of few."""
    return scope["method"] if scope["method"] in _METHODS else "other"


def route_of(scope: Scope, prefix: str) -> str:
    """Return the template of the route that answered the request, or `NO_ROUTE`.

    Args:
        scope: Of a request that was answered.
        prefix: Put before every template where the path has it: routers inside others say theirs without.
    """
    template: str | None = getattr(scope.get("route"), "path", None)
    if template is None:
        return NO_ROUTE
    is_inside = scope["path"].startswith(f"{prefix}/") and not template.startswith(prefix)
    return prefix + template if is_inside else template
