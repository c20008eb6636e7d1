"""The local API over a real socket, with a real model."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.serving.api import InferenceApi
from agent.serving.http import HttpServer
from fleet.protocol.errors import Conflict, InvalidConfiguration
from tests.support.agent_bundles import expected_class
from tests.support.agent_device import SAMPLE, Reply, UnixConnection
from tests.support.agent_models import MEANS
from tests.support.inference_server import Api, tensor


@pytest.fixture(name="api")
def api_fixture() -> Iterator[Api]:
    with tempfile.TemporaryDirectory() as folder:  # a test's own folder has too long a path for a socket
        api = Api(Path(folder))
        yield api
        api.close()
        assert api.faults == []


def test_predictions_carry_what_the_protocol_says(api: Api) -> None:
    reply = api.call("POST", "/v2/models/digits/infer", {"id": "17", "inputs": [tensor()]})
    assert reply.status == 200
    assert (reply.body["model_name"], reply.body["model_version"], reply.body["id"]) == ("digits", "1", "17")
    (output,) = reply.body["outputs"]
    assert (output["name"], output["shape"], output["datatype"]) == ("probabilities", [1, 3], "FP32")
    assert output["data"].index(max(output["data"])) == expected_class(1, SAMPLE)


def test_nested_data_is_the_same_as_flat(api: Api) -> None:
    flat = api.call("POST", "/v2/models/digits/infer", {"inputs": [tensor(shape=[2, 4], data=SAMPLE * 2)]})
    nested = api.call(
        "POST", "/v2/models/digits/infer", {"inputs": [tensor(shape=[2, 4], data=[SAMPLE] * 2)]}
    )
    assert flat.body["outputs"] == nested.body["outputs"]


def test_the_server_and_the_model_describe_themselves(api: Api) -> None:
    assert api.call("GET", "/v2").body["name"] == "muster-agent"
    assert api.call("GET", "/v2/health/live").status == 200
    assert api.call("GET", "/v2/health/ready").status == 200
    api.ready = False
    assert api.call("GET", "/v2/health/ready").status == 400
    described = api.call("GET", "/v2/models/digits").body
    assert described["versions"] == ["1"]
    assert described["platform"] == "onnxruntime_onnx"
    assert described["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 4]}]
    assert api.call("GET", "/v2/models/lite").body["platform"] == "litert_tflite"
    numbers, city = api.call("GET", "/v2/models/visits").body["inputs"]
    assert (numbers["datatype"], city["datatype"]) == ("FP32", "BYTES")
    assert api.call("GET", "/v2/models/digits/ready").status == 200
    assert api.call("GET", "/v2/models/other/ready").status == 404


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"inputs": []},
        {"inputs": [tensor(name="other")]},
        {"inputs": [tensor(), tensor()]},
        {"inputs": [tensor(datatype="FP64")]},
        {"inputs": [tensor(shape=[1, 5], data=[0.0] * 5)]},
        {"inputs": [tensor(shape=[4])]},
        {"inputs": [tensor(shape=[0, 4], data=[])]},
        {"inputs": [tensor(shape=[-1, 4])]},
        {"inputs": [tensor(data=SAMPLE[:3])]},
        {"inputs": [tensor(data=[[1.0, 2.0], [3.0]])]},
        {"inputs": [tensor(data=["a", "b", "c", "d"])]},
        {"inputs": [tensor(data=["1", "2", "nan", "4"])]},
        {"inputs": [tensor(data=[True] * 4)]},
        {"inputs": [tensor(data=[None] * 4)]},
        {"inputs": [tensor(data=[1e300] * 4)]},
    ],
)
def test_what_the_model_does_not_take_is_refused_and_not_held_against_it(api: Api, body: Any) -> None:
    reply = api.call("POST", "/v2/models/digits/infer", body)
    assert reply.status == 400
    assert reply.body["code"] == "invalid_message"
    window = api.host.answering("digits").counter.close(1.0)
    assert window is None


def visit(numbers: list[Any], city: Any) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "numbers", "shape": [1, 2], "datatype": "FP32", "data": numbers},
            {"name": "city", "shape": [1, 1], "datatype": "BYTES", "data": [city]},
        ]
    }


def test_text_and_missing_numbers_go_in_and_text_comes_out(api: Api) -> None:
    def answer(numbers: list[Any], city: str) -> dict[str, Any]:
        reply = api.call("POST", "/v2/models/visits/infer", visit(numbers, city))
        assert reply.status == 200
        return {output["name"]: output for output in reply.body["outputs"]}

    filled = answer(list(MEANS), "oslo")
    assert answer([None, MEANS[1]], "oslo") == filled
    assert (filled["label"]["datatype"], filled["label"]["shape"]) == ("BYTES", [1])
    labels = {city: answer([0, 0], city)["label"]["data"] for city in ("lyon", "oslo")}
    assert labels == {"lyon": ["no"], "oslo": ["yes"]}
    unknown = answer([0, 0], "Århus – 東京")
    assert unknown["probabilities"]["data"] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("numbers", "city"),
    [
        ([1.0, 2.0], None),
        ([1.0, 2.0], 5),
        ([1.0, 2.0], ["lyon", "oslo"]),
        ([1.0, "nan"], "lyon"),
        ([1.0, [None]], "lyon"),
        ([None, None, None], "lyon"),
        ([None, 1e300], "lyon"),
    ],
)
def test_only_numbers_may_be_missing_and_text_is_text(api: Api, numbers: list[Any], city: Any) -> None:
    reply = api.call("POST", "/v2/models/visits/infer", visit(numbers, city))
    assert (reply.status, reply.body["code"]) == (400, "invalid_message")
    assert api.host.answering("visits").counter.close(1.0) is None


def test_inputs_have_batches_of_one_size(api: Api) -> None:
    body = visit([1.0, 2.0], "lyon")
    body["inputs"][1] |= {"shape": [2, 1], "data": ["lyon", "oslo"]}
    assert api.call("POST", "/v2/models/visits/infer", body).body["code"] == "invalid_message"


def test_a_reconstruction_has_its_inputs_shape_and_no_classes_to_label(api: Api) -> None:
    frame = [[[1.0, 2.0], [3.0, 4.0]]]
    sent = {"name": "frame", "shape": [1, 2, 2], "datatype": "FP32", "data": frame}
    reply = api.call("POST", "/v2/models/frames/infer", {"inputs": [sent]})
    (output,) = reply.body["outputs"]
    assert (output["shape"], output["data"]) == ([1, 2, 2], [0.5, 1.0, 1.5, 2.0])
    assert "parameters" not in reply.body
    refused = api.call("POST", "/v2/models/frames/feedback", {"id": "0" * 16, "labels": [1]})
    assert (refused.status, refused.body["code"]) == (400, "invalid_input")
    assert "reconstruction" in refused.body["error"]


def test_feedback_names_classes_of_a_table(api: Api) -> None:
    reply = api.call("POST", "/v2/models/visits/infer", visit([0, 0], "oslo"))
    feedback = {"id": reply.body["parameters"]["prediction_id"], "labels": ["yes"]}
    assert api.call("POST", "/v2/models/visits/feedback", feedback).body == {"labelled": 1, "correct": 1}


def test_an_answer_that_is_not_finite_is_an_error(api: Api) -> None:
    reply = api.call("POST", "/v2/models/digits/infer", {"inputs": [tensor(data=[-1.0] * 4)]})
    assert (reply.status, reply.body["code"]) == (500, "inference_not_finite")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v3"),
        ("POST", "/v2"),
        ("DELETE", "/v2/models/digits"),
        ("POST", "/v2/models/no/infer"),
    ],
)
def test_what_is_not_there_is_not_found(api: Api, method: str, path: str) -> None:
    assert api.call(method, path, {"inputs": [tensor()]}).status == 404


def test_feedback_counts_once_and_only_what_fits(api: Api) -> None:
    truth = expected_class(1, SAMPLE)

    def predict() -> str:
        body = {"inputs": [tensor(shape=[2, 4], data=SAMPLE * 2)]}
        reply = api.call("POST", "/v2/models/digits/infer", body)
        return str(reply.body["parameters"]["prediction_id"])

    def feedback(prediction: str, *labels: Any, model: str = "digits") -> Reply:
        return api.call("POST", f"/v2/models/{model}/feedback", {"id": prediction, "labels": list(labels)})

    first, second = predict(), predict()
    assert feedback(first, truth).status == 400
    assert feedback(first, truth, 3).status == 400
    assert feedback(first, truth, "no class").status == 400
    assert feedback(first, truth, truth, model="other").status == 404
    assert feedback(first, truth, (truth + 1) % 3).body == {"labelled": 2, "correct": 1}
    assert feedback(first, truth, truth).status == 404
    assert feedback(second, "abc"[truth], "abc"[truth]).body == {"labelled": 2, "correct": 2}
    window = api.host.answering("digits").counter.close(1.0)
    assert window is not None
    assert (window.predictions, window.labelled, window.correct) == (4, 4, 3)


def test_a_connection_serves_many_requests(api: Api) -> None:
    connection = UnixConnection(api.path)
    connection.connect()
    sock = connection.sock
    for _ in range(5):
        connection.request("POST", "/v2/models/digits/infer", msgspec.json.encode({"inputs": [tensor()]}))
        response = connection.getresponse()
        assert response.status == 200
        response.read()
        assert connection.sock is sock
    connection.close()


def test_requests_sent_in_a_row_are_answered_in_order(api: Api) -> None:
    request = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    last = b"GET /v2/models/digits HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    received = api.raw(request * 3 + last)
    assert received.count(b"HTTP/1.1 200") == 4
    assert b"versions" in received.rpartition(b"HTTP/1.1")[2]


def test_a_client_that_waits_is_told_to_continue(api: Api) -> None:
    body = msgspec.json.encode({"inputs": [tensor()]})
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(api.path))
        head = b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
        sock.sendall(head + b"content-length: %d\r\n\r\n" % len(body))
        assert sock.recv(1000).startswith(b"HTTP/1.1 100")
        sock.sendall(body)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
        (b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 20001\r\n\r\n", 413),
        (
            b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            + b"1000\r\n" * 1
            + (b"x" * 0x1000 + b"\r\n1000\r\n") * 8,
            413,
        ),
    ],
)
def test_what_is_no_request_or_too_large_is_answered_and_the_connection_ended(
    api: Api, data: bytes, status: int
) -> None:
    assert api.raw(data).startswith(f"HTTP/1.1 {status}".encode())
    assert api.call("GET", "/v2/health/live").status == 200


def test_a_request_cut_off_hurts_nobody(api: Api) -> None:
    api.raw(b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    assert api.call("GET", "/v2/health/live").status == 200


def test_a_dead_process_socket_is_replaced_and_a_living_one_is_not(api: Api) -> None:
    stale = api.path.with_name("stale")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))

    async def start(path: Path) -> None:
        idle = InferenceApi(api.host, bool, tuple, 1)
        server = HttpServer(path, idle.respond, idle.refuse, 1)
        await server.start()
        await server.close()

    api.run(start(stale))
    assert not stale.exists()
    with pytest.raises(Conflict):
        api.run(start(api.path))
    with pytest.raises(InvalidConfiguration):
        api.run(start(api.path.with_name("x" * 200)))
    api.path.with_name("file").write_text("precious")
    with pytest.raises(InvalidConfiguration):
        api.run(start(api.path.with_name("file")))
    assert api.path.stat().st_mode & 0o777 == 0o600
