"""Whatever bytes come to the fast path, it answers in its framing or ends the connection, and serves on.

Frames are good ones with some bytes changed, cut or doubled: more of them get past the first check than of
random bytes.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agent.client
from agent.serving.fast_frames import (
    ANSWER,
    HEADER,
    Described,
    Header,
    Kind,
    Place,
    pack_head,
    unpack_error,
    unpack_head,
    unpack_header,
)
from agent.serving.fast_plan import plan_request, read_labels
from agent.serving.fast_regions import Regions
from fleet.protocol.errors import InvalidMessage, MusterError
from fleet.protocol.text import encode_text
from tests.support.agent_bundles import build_tabular
from tests.support.agent_device import SAMPLE
from tests.support.inference_server import Api
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

FUZZ = settings(
    max_examples=examples(300),
    deadline=timedelta(seconds=5),
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_CITY = encode_text(np.array(["oslo"], dtype=object))
_VISIT = pack_head(
    [
        Described("numbers", "float32", (1, 2), Place.DATA, 0, 0, 8),
        Described("city", "str", (1, 1), Place.DATA, 0, 8, len(_CITY)),
        Described("label", "", (), Place.ASKED_IN_DATA),
    ]
)
_DIGITS = pack_head([Described("pixels", "float32", (1, 4), Place.DATA, 0, 0, 16)])
_LABELS = pack_head([Described("labels", "int64", (1,), Place.DATA, 0, 0, 8)])
SIGNATURE = build_tabular().manifest.signature
_PIXELS = np.array(SAMPLE, dtype="<f4").tobytes()


def _frame(kind: Kind, head: bytes = b"", data: bytes = b"", handle: int = 0) -> bytes:
    return Header(kind, 0, handle, 1, 0, len(head), len(data)).pack() + head + data


OPEN = _frame(Kind.OPEN, data=b"visits") + _frame(Kind.OPEN, data=b"digits")
GOOD = (
    _frame(Kind.INFER, _VISIT, bytes(8) + _CITY, handle=1),
    _frame(Kind.INFER, _DIGITS, _PIXELS, handle=2) * 3,
    _frame(Kind.FEEDBACK, _LABELS, bytes(8)),
    _frame(Kind.SHARE) + b"\0",
)


@st.composite
def spoiled(draw: st.DrawFn, good: bytes) -> bytes:
    """Good bytes, with up to four changes."""
    data = bytearray(good)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        size = draw(st.sampled_from([0, 1, 1, 2, 4, 8]))
        put = draw(
            st.one_of(st.binary(min_size=size, max_size=size), st.just(b"\xff" * size), st.binary(max_size=8))
        )
        data[place : place + size] = put
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data)


@pytest.fixture(name="api", scope="module")
def api_fixture() -> Iterator[Api]:
    with tempfile.TemporaryDirectory() as folder:  # a test's own folder has too long a path for a socket
        api = Api(Path(folder))
        yield api
        with agent.client.connect(api.fast_path) as client:
            assert client.model("digits")([SAMPLE]).version == 1
        api.close()
        assert api.faults == []


@settings(max_examples=examples(1000), derandomize=True, deadline=None)
@given(head=st.one_of(st.binary(max_size=120), spoiled(_VISIT), spoiled(_LABELS)), size=st.integers(0, 64))
def test_heads_are_understood_or_refused(head: bytes, size: int) -> None:
    with suppress(InvalidMessage):
        assert pack_head(unpack_head(head)) or not head
    with suppress(MusterError):
        assert plan_request(head, size, SIGNATURE, Regions(0, are_trusted=False)).data_bytes == size
    with suppress(InvalidMessage):
        assert len(read_labels(head, bytes(size))) * 8 <= size or size % 8


@FUZZ
@given(data=st.one_of(st.binary(max_size=200), *(spoiled(good) for good in GOOD), spoiled(OPEN)))
def test_every_connection_is_answered_or_ended(api: Api, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(api.fast_path))
        received = b""
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(OPEN + data)
            sock.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while part := sock.recv(65536):
                received += part
    while received:
        header = unpack_header(received)
        assert header.kind & ANSWER
        size_bytes = HEADER.size + header.head_bytes + header.data_bytes
        assert len(received) >= size_bytes
        if header.status:
            error = unpack_error(received[HEADER.size + header.head_bytes : size_bytes])
            assert error.code in {
                "invalid_message",
                "not_found",
                "message_too_large",
                "unavailable",
                "inference_not_finite",
                "inference_failed",
            }, error
        received = received[size_bytes:]


def test_what_is_spoiled_is_good_to_begin_with(api: Api) -> None:
    for good in GOOD[:2]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(api.fast_path))
            sock.sendall(OPEN + good)
            sock.shutdown(socket.SHUT_WR)
            received = b""
            while part := sock.recv(65536):
                received += part
        while received:
            header = unpack_header(received)
            assert header.status == 0
            received = received[HEADER.size + header.head_bytes + header.data_bytes :]
