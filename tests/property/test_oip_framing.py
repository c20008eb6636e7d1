"""Whatever bytes come to the local API, it answers in its protocol or ends the connection, and serves on.

Requests are good ones with some bytes changed, cut or doubled, and headers of all kinds: far more of them get
past the first check than of random bytes.
"""

from __future__ import annotations

import gzip
import socket
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.serving.http_messages import Request
from fleet.protocol.text import encode_text
from tests.support.inference_server import Api, tensor
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

FUZZ = settings(
    max_examples=examples(400),
    deadline=timedelta(seconds=5),
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_CITY = encode_text(np.array(["oslo"], dtype=object))
_VISIT = msgspec.json.encode(
    {
        "inputs": [
            {"name": "numbers", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
            {
                "name": "city",
                "shape": [1, 1],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": len(_CITY)},
            },
        ],
        "outputs": [{"name": "label", "parameters": {"binary_data": True}}],
        "id": "x",
    }
)
_VISIT_BODY = _VISIT + bytes(8) + _CITY
_JSON_BODY = msgspec.json.encode({"inputs": [tensor()], "parameters": {"binary_data_output": True}})
GOOD = {
    "digits": (_JSON_BODY, len(_JSON_BODY)),
    "visits": (_VISIT_BODY, len(_VISIT)),
}


@pytest.fixture(name="api", scope="module")
def api_fixture() -> Iterator[Api]:
    with tempfile.TemporaryDirectory() as folder:  # a test's own folder has too long a path for a socket
        api = Api(Path(folder))
        yield api
        assert api.call("POST", "/v2/models/digits/infer", {"inputs": [tensor()]}).status == 200
        api.close()
        assert api.faults == []


@st.composite
def spoiled(draw: st.DrawFn, good: bytes) -> bytes:
    """Good bytes, with up to four changes."""
    data = bytearray(good)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 8))
        put = draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from([b"[", b"{", b'"', b"-1", b"null", b"true", b"1e999", b"9" * 30, b"\r\n"]),
            )
        )
        data[place : place + size] = put
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request for predictions."""
    model = draw(st.sampled_from(sorted(GOOD)))
    good, length = GOOD[model]
    body, headers = draw(spoiled(good)), {}
    if draw(st.booleans()):
        lengths = st.one_of(st.just(length), st.integers(-2, len(good) + 2), st.integers())
        headers["inference-header-content-length"] = draw(st.one_of(lengths.map(str), st.text(max_size=5)))
    if draw(st.integers(0, 4)) == 0:
        headers["content-encoding"] = draw(st.sampled_from(["gzip", "deflate", "br", ""]))
        body = draw(spoiled(gzip.compress(body, mtime=0)))
    version = draw(st.sampled_from(["", "", "", "/versions/1", "/versions/2", "/versions/%00"]))
    return Request("POST", f"/v2/models/{model}{version}/infer", headers, body)


@FUZZ
@given(request_=requests())
def test_every_request_is_answered_in_the_protocol(api: Api, request_: Request) -> None:
    answer = api.run(api.respond(request_))
    length = int(dict(answer.headers).get("inference-header-content-length", len(answer.body)))
    told: dict[str, Any] = msgspec.json.decode(answer.body[:length])
    if answer.status == 200:
        assert told["outputs"]
    else:
        assert (answer.status, told["code"]) in {
            (400, "invalid_message"),
            (404, "not_found"),
            (413, "message_too_large"),
            # Huge numbers are finite, and what a model makes of them may not be.
            (500, "inference_not_finite"),
        }


def _on_the_wire(path: str, headers: bytes, body: bytes) -> bytes:
    return b"POST %s HTTP/1.1\r\nhost: x\r\n%s\r\n\r\n%s" % (path.encode(), headers, body)


WIRE = [
    _on_the_wire("/v2/models/digits/infer", b"content-length: %d" % len(_JSON_BODY), _JSON_BODY) * 2,
    _on_the_wire(
        "/v2/models/digits/infer",
        b"transfer-encoding: chunked",
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(_JSON_BODY), _JSON_BODY),
    ),
    b"GET /v2/models/digits/config HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
]


@FUZZ
@given(data=st.one_of(st.binary(max_size=200), *(spoiled(good) for good in WIRE)))
def test_every_connection_is_answered_or_ended(api: Api, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(api.path))
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while part := sock.recv(65536):
            received += part
    assert received == b"" or received.startswith(b"HTTP/1.1 ")
    assert not received.startswith(b"HTTP/1.1 500") or b'"inference_not_finite"' in received


def test_what_is_spoiled_is_good_to_begin_with(api: Api) -> None:
    for model, (body, length) in GOOD.items():
        headers = {"inference-header-content-length": str(length)}
        request = Request("POST", f"/v2/models/{model}/infer", headers, body)
        assert api.run(api.respond(request)).status == 200
    for data in WIRE:
        assert api.raw(data).startswith(b"HTTP/1.1 200 ")
