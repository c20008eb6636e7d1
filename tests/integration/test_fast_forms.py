"""Requests of the last one's form, which the fast path answers without unpacking them, and others between."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.serving.fast_frames import ERROR, Described, Header, Kind, Place, pack_head
from tests.support.fast_frames import receive_frame
from tests.support.inference_server import Api, api_fixture  # noqa: F401 - pytest finds fixtures by name

Samples = NDArray[np.float32]


@pytest.fixture(name="sock")
def sock_fixture(api: Api) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(api.fast_path))
        sock.sendall(Header(Kind.OPEN, data_bytes=6).pack() + b"digits")
        assert receive(sock)[0].handle == 1
        yield sock


def frame(request_id: int, samples: Samples) -> bytes:
    """Return a request for predictions."""
    head = pack_head([Described("pixels", "float32", samples.shape, Place.DATA, 0, 0, samples.nbytes)])
    header = Header(Kind.INFER, 0, 1, request_id, 0, len(head), samples.nbytes)
    return header.pack() + head + samples.tobytes()


def receive(sock: socket.socket) -> tuple[Header, Samples]:
    """Return an answer's header and its numbers."""
    header, data = receive_frame(sock)
    return header, np.frombuffer(data if header.status != ERROR else b"", np.float32)


def some(number: int, count: int = 1) -> Samples:
    """Return samples that differ by number."""
    return np.random.default_rng(number).uniform(0, 1, (count, 4)).astype(np.float32)


def expected(api: Api, samples: Samples) -> Samples:
    """Return what the model answers."""
    outputs = api.host.answering("digits").compute({"pixels": samples})
    return np.asarray(outputs["probabilities"]).ravel()


def check(api: Api, sock: socket.socket, request_id: int, samples: Samples) -> None:
    """Take an answer and compare it."""
    header, found = receive(sock)
    assert (header.request_id, header.version, header.status) == (request_id, 1, 0)
    assert found.tolist() == expected(api, samples).tolist()


def test_a_request_is_whole_wherever_it_was_cut(api: Api, sock: socket.socket) -> None:
    size = len(frame(1, some(1)))
    for cut in range(1, size):
        data = frame(cut, some(cut))
        sock.sendall(data[:cut])
        sock.sendall(data[cut:])
        check(api, sock, cut, some(cut))


def test_requests_of_several_forms_alone_and_together(api: Api, sock: socket.socket) -> None:
    rng = np.random.default_rng(3)
    number = 0
    for _ in range(300):
        asked = [
            (number + k, some(number + k, int(rng.integers(1, 3)))) for k in range(int(rng.integers(1, 4)))
        ]
        number += len(asked)
        data = b"".join(frame(*each) for each in asked)
        cut = int(rng.integers(0, len(data)))
        sock.sendall(data[:cut])
        sock.sendall(data[cut:])
        for each in asked:
            check(api, sock, *each)


def test_larger_than_the_first_buffer_and_small_again(api: Api, sock: socket.socket) -> None:
    for number, count in enumerate([1, 9000, 9000, 1, 1, 4097, 9000, 1]):
        samples = some(number, count)
        sock.sendall(frame(number, samples))
        check(api, sock, number, samples)


def test_a_refused_request_has_its_own_id_and_changes_nothing(api: Api, sock: socket.socket) -> None:
    bad = some(5)
    bad[0, 2] = np.nan
    for number, samples in enumerate([some(4), bad, some(6), bad, bad, some(7)]):
        sock.sendall(frame(number, samples))
        if np.isnan(samples).any():
            header, _ = receive(sock)
            assert (header.request_id, header.status) == (number, ERROR)
        else:
            check(api, sock, number, samples)
