"""The fast path with its client and with bytes of all kinds, on real sockets and real models."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agent.client
from agent.serving import fast_stream
from agent.serving.fast_frames import (
    ANSWER,
    ERROR,
    GOOD,
    Described,
    Header,
    Kind,
    Place,
    pack_head,
    unpack_error,
)
from fleet.protocol.errors import (
    Conflict,
    InferenceFailed,
    InferenceNotFinite,
    InferenceTimedOut,
    InvalidInput,
    InvalidMessage,
    MessageTooLarge,
    MusterError,
    NotFound,
    Unavailable,
)
from tests.support.agent_bundles import build, expected_class, load_bundle
from tests.support.agent_device import SAMPLE
from tests.support.fast_frames import receive_frame
from tests.support.held_model import hold_up
from tests.support.inference_server import (  # noqa: F401 - pytest finds fixtures by name
    FAST_LIMIT_BYTES,
    Api,
    api_fixture,
    tensor,
)
from tests.support.waiting import eventually

X = np.array([SAMPLE], dtype=np.float32)
HEAD = pack_head([Described("pixels", "float32", (1, 4), Place.DATA, 0, 0, 16)])


@pytest.fixture(name="client")
def client_fixture(api: Api) -> Iterator[agent.client.Client]:
    with agent.client.connect(api.fast_path, timeout_s=10.0) as client:
        yield client
    wait_no_clients(api)


def wait_no_clients(api: Api) -> None:
    """Wait until the server has seen that clients are gone, so that the next test has room for its own."""
    eventually(lambda: api.fast.connections == 0)


def dial(api: Api) -> socket.socket:
    """Return a connection without a client."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(str(api.fast_path))
    return sock


def ask(sock: socket.socket, kind: int, head: bytes = b"", data: bytes = b"", **fields: int) -> Any:
    """Send a frame; return the header of a good answer, or the error."""
    header = Header(kind, request_id=77, head_bytes=len(head), data_bytes=len(data))._replace(**fields)
    sock.sendall(header.pack() + head + data)
    answer, rest = receive_frame(sock)
    assert answer.kind == kind | ANSWER
    assert answer.request_id == 77
    assert answer.status in (GOOD, ERROR)
    return unpack_error(rest) if answer.status == ERROR else answer


def test_answers_are_those_of_the_local_api(api: Api, client: agent.client.Client) -> None:
    model = client.model("digits")
    assert model.inputs == (("pixels", "float32", (-1, 4)),)
    assert model.outputs == (("probabilities", "float32", (-1, 3)),)
    answer = model(X)
    reply = api.call("POST", "/v2/models/digits/infer", {"inputs": [tensor()]})
    assert answer.version == 1
    assert answer.outputs["probabilities"].ravel().tolist() == reply.body["outputs"][0]["data"]
    assert model([SAMPLE]).outputs["probabilities"].shape == (1, 3)
    many = np.repeat(X, 2000, axis=0)  # more than a connection's first buffer
    assert model({"pixels": many}).outputs["probabilities"].argmax(axis=1).tolist() == [
        expected_class(1, SAMPLE)
    ] * len(many)
    assert client.model("lite")(X).outputs["probabilities"] == pytest.approx(
        answer.outputs["probabilities"], abs=1e-5
    )


def test_text_and_several_tensors(client: agent.client.Client) -> None:
    model = client.model("visits")
    numbers = np.array([[np.nan, 1.0], [2.0, 3.0], [4.0, 5.0]], dtype=np.float32)
    cities = np.array([["Århus"], [""], ["lyon"]], dtype=object)
    answer = model({"city": cities, "numbers": numbers})
    assert answer.outputs["label"].tolist() == [
        ("no", "yes")[number] for number in answer.outputs["probabilities"].argmax(axis=1)
    ]
    only = model({"numbers": numbers, "city": cities.tolist()}, outputs=["label"])
    assert list(only.outputs) == ["label"]
    assert only.outputs["label"].tolist() == answer.outputs["label"].tolist()


def test_shared_memory_holds_inputs_and_outputs(client: agent.client.Client) -> None:
    model = client.model("digits")
    given, taken = client.shared_array((100, 4), np.float32), client.shared_array((200, 3), np.float32)
    for value in (0.25, 0.75):
        given[:] = np.linspace(0, value, 400).reshape(100, 4)
        answer = model(given, outputs={"probabilities": taken})
        expected = model(given.copy()).outputs["probabilities"]
        assert np.shares_memory(answer.outputs["probabilities"], taken)
        assert answer.outputs["probabilities"].tolist() == taken[:100].tolist() == expected.tolist()
    small = client.shared_array((1, 3), np.float32)
    with pytest.raises(MessageTooLarge, match="room for 12"):
        model(given, outputs={"probabilities": small})
    client.give_back(given)
    assert model(given).outputs["probabilities"].tolist() == expected.tolist()  # through the socket
    with pytest.raises(InvalidInput):
        model(given, outputs={"probabilities": given.copy()})


def test_shared_inputs_are_counted_before_anybody_overwrites_them(
    api: Api, client: agent.client.Client
) -> None:
    hosted, counted = api.host.get("digits"), []
    assert hosted is not None
    given = client.shared_array((1, 4), np.float32)
    given[:] = X
    hosted.on_answer = lambda inputs, outputs, _: counted.append(
        (inputs["pixels"].tolist(), outputs["probabilities"].tolist())
    )
    try:
        client.model("digits")(given, outputs={"probabilities": given})  # in the place of the input
    finally:
        hosted.on_answer = None
    assert [inputs for inputs, _ in counted] == [X.tolist()]
    assert given[0, :3].tolist() == counted[0][1][0]


def test_feedback_reaches_the_prediction_from_either_path(api: Api, client: agent.client.Client) -> None:
    model = client.model("digits")
    first = model(np.repeat(X, 2, axis=0)).prediction_id
    assert first is not None
    truth = expected_class(1, SAMPLE)
    with pytest.raises(InvalidInput):
        client.feedback(first, [truth])
    with pytest.raises(NotFound):
        client.feedback(first, [truth, truth], model="visits")
    assert client.feedback(first, [truth, (truth + 1) % 3], model="digits") == (2, 1)
    with pytest.raises(NotFound):
        client.feedback(first, [truth, truth])
    second = model(X).prediction_id
    assert second is not None
    assert client.feedback(second, "abc"[truth]) == (1, 1)
    assert client.model("frames")(np.ones((1, 2, 2), np.float32)).prediction_id is None


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"pixels": X.astype(np.float64)}, "elements of float32, not of float64"),
        ({"pixels": X.astype(np.complex64)}, "unknown type"),
        ({"pixels": X[0]}, "shape"),
        ({"pixels": X[:, :3]}, "shape"),
        ({"pixels": X[:0]}, "shape"),
        ({"pixel": X}, "takes the inputs pixels"),
        ({"pixels": X, "more": X}, "takes the inputs pixels"),
        ({}, "none came"),
        ({"x" * 300: X}, "255 are the most"),
        ({"pixels": X * np.inf}, "not finite"),
        ({"pixels": X * np.float32(1e30)}, None),
    ],
)
def test_what_the_model_does_not_take_is_refused(
    client: agent.client.Client, inputs: Any, error: str | None
) -> None:
    model = client.model("digits")
    if error is None:  # huge, and finite: what the model makes of it is
        assert np.isfinite(model(inputs).outputs["probabilities"]).all()
    else:
        with pytest.raises(InvalidMessage, match=error):
            model(inputs)
    assert model(X).version == 1


def test_models_and_versions_that_do_not_answer(client: agent.client.Client) -> None:
    with pytest.raises(NotFound):
        client.model("nobody")
    with pytest.raises(Unavailable, match="DOWNLOADING"):
        client.model("later")
    model = client.model("digits")
    assert model(X, version=1).version == 1
    with pytest.raises(NotFound, match="version 1 does"):
        model(X, version=2)
    with pytest.raises(InferenceNotFinite):
        model(-X)
    with pytest.raises(InvalidMessage, match="gives the outputs"):
        model(X, outputs=["nothing"])


def _described(**changes: Any) -> bytes:
    return pack_head([Described("pixels", "float32", (1, 4), Place.DATA, 0, 0, 16)._replace(**changes)])


@pytest.mark.parametrize(
    ("head", "data", "why"),
    [
        (HEAD, b"\0" * 15, "15 bytes came"),
        (HEAD, b"\0" * 17, "17 bytes came"),
        (b"", b"", "none came"),
        (HEAD[:-3], b"\0" * 16, "head"),
        (HEAD[:5], b"\0" * 16, "head"),
        (HEAD + HEAD, b"\0" * 32, "pixels, pixels came"),
        (_described(size_bytes=12), b"\0" * 12, "takes 16 bytes, not 12"),
        (_described(shape=(1, 2**62)), b"\0" * 16, "shape"),
        (_described(shape=(2**62, 4)), b"\0" * 16, "takes"),
        (_described(offset=8), b"\0" * 24, "follow one another"),
        (_described(place=Place.REGION, region=3), b"", "no region 3"),
        (_described(place=Place.ASKED_IN_REGION, region=3), b"", "none came"),
        (HEAD[:3] + b"\x09" + HEAD[4:], b"\0" * 16, "head"),
        (HEAD[:2] + b"\xff" + HEAD[3:], b"\0" * 16, "255 dimensions"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused_and_the_next_is_answered(
    api: Api, head: bytes, data: bytes, why: str
) -> None:
    with dial(api) as sock:
        handle = ask(sock, Kind.OPEN, data=b"digits").handle
        error = ask(sock, Kind.INFER, head, data, handle=handle)
        assert isinstance(error, InvalidMessage), error
        assert why in str(error)
        assert ask(sock, Kind.INFER, HEAD, X.tobytes(), handle=handle).version == 1


def test_requests_that_are_none(api: Api) -> None:
    with dial(api) as sock:
        assert isinstance(ask(sock, 99), InvalidMessage)
        assert isinstance(ask(sock, Kind.INFER, HEAD, X.tobytes(), handle=5), NotFound)
        assert isinstance(ask(sock, Kind.OPEN, data=b"\xff\xfe"), InvalidMessage)
        assert isinstance(ask(sock, Kind.UNSHARE, handle=1), NotFound)
        assert isinstance(ask(sock, Kind.FEEDBACK, HEAD, X.tobytes()), InvalidMessage)
        labels = pack_head([Described("labels", "int64", (1,), Place.DATA, 0, 0, 8)])
        assert isinstance(ask(sock, Kind.FEEDBACK, labels, b"\0" * 8, prediction_id=2**64 - 1), NotFound)


@pytest.mark.parametrize(
    "frame",
    [
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        Header(Kind.INFER, data_bytes=2**31).pack(),
        Header(Kind.INFER, head_bytes=2**32 - 1).pack(),
        Header(Kind.INFER, data_bytes=FAST_LIMIT_BYTES + 1).pack(),
    ],
)
def test_where_the_next_frame_begins_must_be_known(api: Api, frame: bytes) -> None:
    with dial(api) as sock:
        sock.sendall(frame)
        answer, data = receive_frame(sock)
        assert answer.status == ERROR
        assert unpack_error(data).code in {"invalid_message", "message_too_large"}
        with pytest.raises((ConnectionResetError, AssertionError)):
            receive_frame(sock)


def test_requests_sent_together_are_answered_in_order(api: Api) -> None:
    with dial(api) as sock:
        handle = ask(sock, Kind.OPEN, data=b"digits").handle
        for number in range(1, 4):
            header = Header(Kind.INFER, 0, handle, number, 0, len(HEAD), 16)
            sock.sendall((header.pack() + HEAD + X.tobytes())[: 60 if number == 3 else None])
        assert [receive_frame(sock)[0].request_id for _ in range(2)] == [1, 2]
        sock.sendall((Header(Kind.INFER, 0, handle, 3, 0, len(HEAD), 16).pack() + HEAD + X.tobytes())[60:])
        assert receive_frame(sock)[0].request_id == 3


def test_memory_that_could_go_away_is_not_mapped(api: Api) -> None:
    with dial(api) as sock:
        unsealed = os.memfd_create("test", os.MFD_ALLOW_SEALING)
        os.ftruncate(unsealed, 4096)
        huge = os.memfd_create("test", os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
        fcntl.fcntl(huge, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        with tempfile.TemporaryFile() as file:
            for descriptors, why in (
                ([unsealed], "sealed"),
                ([huge], "huge pages"),
                ([file.fileno()], "no file in memory"),
                ([], "No descriptor"),
            ):
                assert ask(sock, Kind.SHARE).status == GOOD
                socket.send_fds(sock, [b"\0"], descriptors)
                answer, data = receive_frame(sock)
                assert answer.status == ERROR
                assert why in str(unpack_error(data))
        os.close(unsealed)
        os.close(huge)
        assert ask(sock, Kind.OPEN, data=b"digits").handle == 1


def test_regions_are_bounded_in_size_and_number(client: agent.client.Client) -> None:
    model = client.model("digits")
    with pytest.raises(MessageTooLarge):
        model(client.shared_array((FAST_LIMIT_BYTES // 16 + 1, 4), np.float32))
    for _ in range(16):
        assert model(client.shared_array((1, 4), np.float32)).version == 1
    with pytest.raises(MessageTooLarge, match="16 regions"):
        model(client.shared_array((1, 4), np.float32))


def test_too_many_clients_are_told_so(api: Api) -> None:
    with dial(api) as one, dial(api) as two, dial(api) as three, dial(api) as four:
        for sock in (one, two, three, four):
            assert ask(sock, Kind.OPEN, data=b"digits").handle == 1
        with (
            agent.client.connect(api.fast_path) as fifth,
            pytest.raises(Unavailable, match="4 connections"),
        ):
            fifth.model("digits")
    wait_no_clients(api)


def test_clients_that_stall_are_cut_and_hold_nobody_up(
    api: Api, client: agent.client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_stream, "STALL_S", 1)
    model = client.model("digits")
    with dial(api) as halfway, dial(api) as deaf:
        halfway.sendall(Header(Kind.INFER, data_bytes=1000).pack() + b"\0" * 10)
        handle = ask(deaf, Kind.OPEN, data=b"digits").handle
        rows = 10_000
        head = pack_head([Described("pixels", "float32", (rows, 4), Place.DATA, 0, 0, 16 * rows)])
        frame = Header(Kind.INFER, 0, handle, 1, 0, len(head), 16 * rows).pack() + head + bytes(16 * rows)
        deaf.setblocking(False)
        ended = False
        deadline_s = time.monotonic() + 10
        while not ended and time.monotonic() < deadline_s:  # it sends and sends, and never reads
            try:
                deaf.send(frame)
            except BlockingIOError:
                assert model(X).version == 1
            except OSError:
                ended = True
        assert ended
        assert halfway.recv(1) == b""


def test_a_client_reconnects_after_a_restart(api: Api, client: agent.client.Client) -> None:
    model = client.model("digits")
    given = client.shared_array((1, 4), np.float32)
    given[:] = X
    assert model(given).version == 1
    api.run(api.fast.close(1.0))
    with pytest.raises(Unavailable, match="No agent answers"):
        model(given)
    api.fast = api.run(api.start_fast())
    assert model(given).outputs["probabilities"].argmax() == expected_class(1, SAMPLE)
    api.run(api.fast.close(1.0))
    api.fast = api.run(api.start_fast())
    assert model(given).version == 1  # the old connection is closed, which nobody told


def test_a_socket_of_a_dead_process_is_replaced_and_a_living_one_is_not(api: Api) -> None:
    with pytest.raises(Conflict):
        api.run(api.start_fast())
    api.run(api.fast.close(1.0))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(api.fast_path))
    api.fast = api.run(api.start_fast())
    assert api.fast_path.stat().st_mode & 0o777 == 0o600
    with agent.client.connect(api.fast_path) as client:
        assert client.model("digits")(X).version == 1
    wait_no_clients(api)


def test_threads_share_a_client(api: Api, client: agent.client.Client) -> None:
    model = client.model("digits")
    wrong: list[Any] = []

    def work(value: float) -> None:
        given = np.full((1, 4), value, dtype=np.float32)
        expected = model(given).outputs["probabilities"].tolist()
        wrong.extend(
            answer
            for answer in (model(given).outputs["probabilities"].tolist() for _ in range(200))
            if answer != expected
        )

    threads = [threading.Thread(target=work, args=(value,)) for value in (0.1, 0.5, 0.9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_model_that_hangs_is_given_up_and_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client is told, others that wait for their turn are told, and the agent still ends at once."""
    with tempfile.TemporaryDirectory() as folder:
        api = Api(Path(folder))
        api.run(api.fast.close(1.0))
        api.fast = api.run(api.start_fast(timeout_s=1.5))
        hosted = api.run(load_bundle(build(1), tmp_path, timeout_s=1.5))
        let_go = hold_up(hosted, 2.0, monkeypatch)
        told: list[InferenceFailed] = []
        hosted.on_failure = told.append
        api.host.put("digits", hosted)
        try:
            with agent.client.connect(api.fast_path) as client, agent.client.connect(api.fast_path) as other:
                assert client.model("digits")(X).version == 1
                errors: list[MusterError] = []

                def hang() -> None:
                    try:
                        client.model("digits")(X + 2)
                    except MusterError as error:
                        errors.append(error)

                hanging = threading.Thread(target=hang)
                hanging.start()
                eventually(lambda: hosted.is_busy)
                with pytest.raises(InferenceTimedOut):
                    other.model("digits")(X)
                hanging.join()
                assert [type(error) for error in errors] == [InferenceTimedOut]
                assert eventually(lambda: len(told) == 2)
                assert {type(error) for error in told} == {InferenceTimedOut}
                assert other.model("visits").name == "visits"  # other models answer
        finally:
            api.run(api.fast.close(0.2))
            assert hosted.is_busy, "it came to its end although the model hangs"
            let_go.set()
            eventually(lambda: not hosted.is_busy)  # the process must not end around a runtime at work
            wait_no_clients(api)  # the thread that was held up has ended too
            api.close()


def test_a_fault_in_counting_is_no_second_answer(api: Api, client: agent.client.Client) -> None:
    hosted = api.host.answering("digits")
    model = client.model("digits")

    def fail(*_: Any) -> None:
        raise KeyError

    hosted.on_answer = fail
    try:
        assert [model(X).version for _ in range(3)] == [1, 1, 1]
    finally:
        hosted.on_answer = None
    assert model(X).version == 1
