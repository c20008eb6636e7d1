"""HTTP requests that say what the last one said: their heads, and JSON before bytes, are not read again."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.inference_server import Api, api_fixture  # noqa: F401 - pytest finds fixtures by name

Samples = NDArray[np.float32]


@pytest.fixture(name="sock")
def sock_fixture(api: Api) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(api.path))
        yield sock


def post(samples: Samples, **more: object) -> bytes:
    """Return a request with its tensor as bytes, which asks for bytes."""
    data = samples.tobytes()
    tensor = {"name": "pixels", "shape": samples.shape, "datatype": "FP32"}
    parameters = {"binary_data_size": len(data)}
    document = {"inputs": [{**tensor, "parameters": parameters}], "parameters": {"binary_data_output": True}}
    text = json.dumps({**document, **more}).encode()
    first = "POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\n"
    head = f"{first}inference-header-content-length: {len(text)}\r\n"
    return f"{head}content-length: {len(text) + len(data)}\r\n\r\n".encode() + text + data


def get(path: str) -> bytes:
    """Return a request without a body."""
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


def receive(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return an answer's status, headers and body, and nothing of the next."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = sock.recv(1)
        assert part, "the connection has ended"
        head += part
    first, *lines = head.decode().strip().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    body = b""
    while len(body) < int(headers["content-length"]):
        body += sock.recv(int(headers["content-length"]) - len(body))
    return int(first.split()[1]), headers, body


def some(number: int, count: int = 1) -> Samples:
    """Return samples that differ by number."""
    return np.random.default_rng(number).uniform(0, 1, (count, 4)).astype(np.float32)


def check(api: Api, sock: socket.socket, samples: Samples, request_id: str | None = None) -> str:
    """Take an answer and compare it; return the prediction's id."""
    status, headers, body = receive(sock)
    assert status == 200
    length = int(headers["inference-header-content-length"])
    said = json.loads(body[:length])
    expected = api.host.answering("digits").compute({"pixels": samples})["probabilities"]
    assert said.get("id") == request_id
    assert said["model_version"] == "1"
    assert said["outputs"][0]["shape"] == list(expected.shape)
    assert said["outputs"][0]["parameters"]["binary_data_size"] == expected.nbytes
    assert body[length:] == expected.tobytes()
    return str(said["parameters"]["prediction_id"])


def test_a_request_is_whole_wherever_it_was_cut(api: Api, sock: socket.socket) -> None:
    size = len(post(some(0)))
    predictions = set()
    for cut in range(1, size, 3):
        data = post(some(cut))
        assert len(data) == size
        sock.sendall(data[:cut])
        sock.sendall(data[cut:])
        predictions.add(check(api, sock, some(cut)))
    assert len(predictions) == len(range(1, size, 3))


def test_a_prediction_of_a_repeated_request_can_be_labelled(api: Api, sock: socket.socket) -> None:
    for number in range(3):
        sock.sendall(post(some(number)))
        prediction = check(api, sock, some(number))
        body = {"id": prediction, "labels": [1]}
        assert api.call("POST", "/v2/models/digits/feedback", body).status == 200
        assert api.call("POST", "/v2/models/digits/feedback", body).status == 404


def test_repeats_and_others_alone_and_together(api: Api, sock: socket.socket) -> None:
    rng = np.random.default_rng(5)
    for round_number in range(200):
        kinds = rng.integers(0, 4, int(rng.integers(1, 5)))
        asked = [(kind, some(round_number + place, 1 + int(kind == 1))) for place, kind in enumerate(kinds)]
        requests = [
            get("/v2/health/live") if kind == 3 else post(samples, **({"id": "a"} if kind == 2 else {}))
            for kind, samples in asked
        ]
        data = b"".join(requests)
        cut = int(rng.integers(0, len(data)))
        sock.sendall(data[:cut])
        sock.sendall(data[cut:])
        for kind, samples in asked:
            if kind == 3:
                assert json.loads(receive(sock)[2]) == {"live": True}
            else:
                check(api, sock, samples, "a" if kind == 2 else None)


def test_bodies_that_look_like_requests_are_bodies(api: Api, sock: socket.socket) -> None:
    hidden = get("/v2/health/live") * 2
    head = b"POST /v2/repository/index HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(hidden)
    for _ in range(3):
        sock.sendall(head + hidden)
        assert receive(sock)[0] == 400
    sock.sendall(get("/v2/models/digits/ready"))
    assert json.loads(receive(sock)[2]) == {"name": "digits", "ready": True}


def test_repeats_are_checked_like_the_first(api: Api, sock: socket.socket) -> None:
    bad = some(1)
    bad[0, 1] = np.inf
    for samples in (some(0), bad, some(2), bad):
        sock.sendall(post(samples))
        if np.isinf(samples).any():
            assert receive(sock)[0] == 400
        else:
            check(api, sock, samples)


def test_a_repeated_head_that_is_cut_off_is_refused(api: Api, sock: socket.socket) -> None:
    sock.sendall(post(some(0)))
    check(api, sock, some(0))
    sock.sendall(post(some(1))[:-2])
    sock.shutdown(socket.SHUT_WR)
    status, headers, _ = receive(sock)
    assert (status, headers["connection"]) == (400, "close")
    assert sock.recv(1) == b""
