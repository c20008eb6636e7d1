"""What connections keep of requests that do not come whole is bounded for all of them together."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from agent.serving.admission import MOST_REQUESTS
from tests.support.inference_server import LIMIT_BYTES, Api, api_fixture  # noqa: F401 - a fixture by name
from tests.support.waiting import eventually

HEAD = b"POST /v2/repository/index HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % LIMIT_BYTES
MORE = 4
"""Clients beyond those for which there is room."""


def has_ended(client: socket.socket) -> bool:
    """Tell whether the server has ended a connection on which it owes nothing."""
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_those_that_were_waited_for_longest_make_room(api: Api) -> None:
    body = b" " * (LIMIT_BYTES - 2) + b"{}"
    with ExitStack() as holding:
        clients = []
        for _ in range(MOST_REQUESTS + MORE):
            client = holding.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(api.path))
            client.sendall(HEAD + body[:-1])
            client.setblocking(False)
            clients.append(client)
        eventually(lambda: all(has_ended(client) for client in clients[:MORE]), "the first ones are ended")
        assert not any(has_ended(client) for client in clients[MORE:])
        last = clients[-1]
        last.settimeout(10)
        last.sendall(body[-1:])
        assert last.recv(100).startswith(b"HTTP/1.1 200 ")
        assert api.call("GET", "/v2/health/live").status == 200
    assert api.faults == []


def test_what_has_been_answered_is_kept_no_more(api: Api) -> None:
    with ExitStack() as holding:
        clients = []
        for _ in range(MOST_REQUESTS + MORE):
            client = holding.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(api.path))
            client.settimeout(10)
            client.sendall(HEAD + b" " * (LIMIT_BYTES - 2) + b"{}")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
            client.setblocking(False)
            clients.append(client)
        for client in clients:
            client.setblocking(True)
            client.settimeout(10)
            while client.recv(65536)[-1:] != b"]":
                pass
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
