"""The command line against a server that answers in another form, as a hub of another release does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hub.cli import app


class _OlderHub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"device_id": "cam-1"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - of http.server
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _OlderHub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "arguments",
    [
        ("device", "show", "cam-1"),
        ("alerts", "show", "offline"),
        ("fleet", "query", "errors", "--model", "digits"),
    ],
)
def test_a_field_that_the_hub_does_not_know_is_one_clear_line(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("MUSTER_TOKEN", "any")
    monkeypatch.setattr("sys.argv", ["muster", "--url", url, *arguments])
    assert app.run() == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "release" in told
    assert told.endswith("[hub_unavailable]\n")
