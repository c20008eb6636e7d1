"""Where an HTTP request ends is never in doubt: what two readers could read in two ways is refused.

RFC 9112, chapter 11: a request that a proxy ends elsewhere than the server smuggles in another one. Every
request here has a second one in its tail, which must not be answered.
"""

from __future__ import annotations

import pytest

from agent.serving.http_requests import HEAD_LIMIT_BYTES
from tests.support.inference_server import Api, api_fixture  # noqa: F401 - pytest finds fixtures by name

HIDDEN = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"


def post(headers: bytes, body: bytes = b"", *, version: bytes = b"1.1") -> bytes:
    return b"POST /v2/repository/index HTTP/%s\r\nhost: x\r\n%s\r\n\r\n%s" % (version, headers, body)


CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (post(b"content-length: 12\r\ntransfer-encoding: chunked", CHUNKS), 400),
        (post(b"transfer-encoding: chunked\r\ncontent-length: 12", CHUNKS), 400),
        (post(b"content-length: 2\r\ncontent-length: 2", b"{}"), 400),
        (post(b"content-length: 2\r\ncontent-length: 0", b"{}"), 400),
        (post(b"content-length: 2, 2", b"{}"), 400),
        (post(b"content-length: +2", b"{}"), 400),
        (post(b"content-length: 0x2", b"{}"), 400),
        (post(b"content-length: " + b"9" * 40, b"{}"), 400),
        (post(b"content-length : 2", b"{}"), 400),
        (post(b"x: a\r\n content-length: 2", b"{}"), 400),
        (post(b"x: a\0\r\ncontent-length: 2", b"{}"), 400),
        (post(b"transfer-encoding: gzip, chunked", CHUNKS), 501),
        (post(b"transfer-encoding: gzip\r\ntransfer-encoding: chunked", CHUNKS), 400),
        (post(b"transfer-encoding: chunked\r\ntransfer-encoding: chunked", CHUNKS), 400),
        (post(b"transfer-encoding: chunked", CHUNKS, version=b"1.0"), 501),
        (post(b"transfer-encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"), 400),
        (post(b"transfer-encoding: chunked", b"+2\r\n{}\r\n0\r\n\r\n"), 400),
        (post(b"transfer-encoding: chunked", b"0x2\r\n{}\r\n0\r\n\r\n"), 400),
        (post(b"transfer-encoding: chunked", b"f" * 20 + b"\r\n{}\r\n0\r\n\r\n"), 400),
        (post(b"transfer-encoding: chunked", b"2\n{}\n0\n\n"), 400),
        (post(b"host: y\r\ncontent-length: 2", b"{}"), 400),
        (post(b"content-length: 2", b"{}", version=b"2.0"), 505),
        (b"GET /v2\r\n\r\n", 505),
        (b"POST /v2 HTTP/1.1\nhost: x\n\n", 400),
        (post(b"x: " + b"a" * 2 * HEAD_LIMIT_BYTES), 431),
        (post(b"x: a\r\n" * (2 * HEAD_LIMIT_BYTES // 6)), 431),
        (post(b"transfer-encoding: chunked", b"0\r\nx: " + b"a" * 2 * HEAD_LIMIT_BYTES), 431),
        (b"\r\n" * HEAD_LIMIT_BYTES, 431),
    ],
)
def test_a_request_whose_end_is_in_doubt_is_refused_with_all_that_follows(
    api: Api, data: bytes, status: int
) -> None:
    answer = api.raw(data + HIDDEN)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /v2 HTTP/1.0\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_nothing_is_answered_behind_a_last_request(api: Api, data: bytes) -> None:
    answer = api.raw(data + HIDDEN)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer


def test_trailers_are_no_headers_of_the_request_or_the_next(api: Api) -> None:
    chunks = b"2\r\n{}\r\n0\r\ncontent-encoding: br\r\n\r\n"
    answer = api.raw(post(b"transfer-encoding: chunked", chunks) * 2)
    assert answer.count(b"HTTP/1.1 200") == 2


def test_a_request_that_is_cut_off_is_told_so(api: Api) -> None:
    for data in (
        b"GET /v2 HT",
        post(b"content-length: 3", b"{}"),
        post(b"transfer-encoding: chunked", b"2\r\n"),
    ):
        assert api.raw(HIDDEN + data).count(b"HTTP/1.1 400") == 1


def test_requests_in_a_row_are_answered_in_order_however_they_are_cut(api: Api) -> None:
    request = b"GET /v2/models/digits/ready HTTP/1.1\r\nhost: x\r\n\r\n"
    assert api.raw((request + HIDDEN) * 500).count(b"HTTP/1.1 200") == 1000
