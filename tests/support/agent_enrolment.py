"""The one HTTP endpoint that a device needs, for the agent's tests: enrolment."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from fleet.protocol.enrolment import ENROL_PATH, EnrolmentAnswer, EnrolmentRequest
from tests.support.brokers import HOST


class EnrolmentServer(http.server.ThreadingHTTPServer):
    """Answers devices on a free port, in threads of its own.

    Args:
        enrol: Answers one request.
    """

    def __init__(self, enrol: Callable[[EnrolmentRequest], EnrolmentAnswer]) -> None:
        self.enrol = enrol
        super().__init__((HOST, 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        """End the server."""
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, EnrolmentServer)
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path != ENROL_PATH:
            self.send_error(404)
            return
        answer = msgspec.json.encode(server.enrol(msgspec.json.decode(body, type=EnrolmentRequest)))
        self.send_response(201)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        del format, args
