"""The Open Inference Protocol beyond predictions in JSON: documents, versions, bytes, encodings, refusals."""

from __future__ import annotations

import gzip
import http.client
import socket
import struct
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest

from fleet.protocol.text import encode_text
from tests.support.agent_device import SAMPLE
from tests.support.agent_models import MEANS
from tests.support.inference_server import (  # noqa: F401 - pytest finds fixtures by name
    LIMIT_BYTES,
    LOADING,
    Api,
    api_fixture,
    tensor,
)

INFER = "/v2/models/digits/infer"
PIXELS = np.array([SAMPLE], dtype="<f4").tobytes()
BINARY = {"parameters": {"binary_data_size": len(PIXELS)}}


def binary_tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "pixels", "shape": [1, 4], "datatype": "FP32", **BINARY, **changes}


def infer(api: Api, request: Any, data: bytes = b"", **headers: str) -> tuple[int, Any, dict[str, bytes]]:
    """Return status, JSON and by name the bytes of outputs of a request with bytes behind its JSON."""
    text = msgspec.json.encode(request)
    headers = {"Inference_Header_Content_Length": str(len(text)), **headers}
    status, got, body = api.send("POST", INFER, text + data, **headers)
    length = got.get("Inference-Header-Content-Length")
    reply = msgspec.json.decode(body if length is None else body[: int(length)])
    parts, position = {}, len(body) if length is None else int(length)
    for output in reply.get("outputs", ()):
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            assert "data" not in output
            parts[output["name"]] = body[position : position + size]
            position += size
    assert position == len(body)
    return status, reply, parts


def probabilities(api: Api) -> list[float]:
    data: list[float] = api.call("POST", INFER, {"inputs": [tensor()]}).body["outputs"][0]["data"]
    return data


def test_bytes_in_give_what_json_gives(api: Api) -> None:
    status, reply, parts = infer(api, {"id": "7", "inputs": [binary_tensor()]}, PIXELS)
    assert (status, reply["id"], parts) == (200, "7", {})
    assert reply["outputs"][0]["data"] == probabilities(api)


@pytest.mark.parametrize(
    "asked",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]},
        {"outputs": [{"name": "probabilities"}], "parameters": {"binary_data_output": True}},
        {"outputs": [], "parameters": {"binary_data_output": True, "custom": "x", "priority": 3}},
    ],
)
def test_bytes_out_are_what_json_gives(api: Api, asked: dict[str, Any]) -> None:
    status, reply, parts = infer(api, {"inputs": [tensor()], **asked})
    assert (status, reply["outputs"][0]["shape"]) == (200, [1, 3])
    values = np.frombuffer(parts["probabilities"], dtype="<f4")
    assert values.tolist() == pytest.approx(probabilities(api))
    assert len(reply["parameters"]["prediction_id"]) == 16


def visit(**asked: Any) -> tuple[dict[str, Any], bytes]:
    numbers = np.array([[np.nan, MEANS[1]]], dtype="<f4").tobytes()
    city = encode_text(np.array(["oslo"], dtype=object))
    inputs = [
        {"name": "numbers", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
        {"name": "city", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(city)}},
    ]
    return {"inputs": inputs, **asked}, numbers + city


def post_visit(api: Api, request: dict[str, Any], data: bytes) -> tuple[int, Any, bytes]:
    text = msgspec.json.encode(request)
    headers = {"Inference-Header-Content-Length": str(len(text))}
    status, got, body = api.send("POST", "/v2/models/visits/infer", text + data, **headers)
    length = int(got.get("Inference-Header-Content-Length", len(body)))
    return status, msgspec.json.decode(body[:length]), body[length:]


def test_text_and_missing_numbers_travel_as_bytes_too(api: Api) -> None:
    in_json = [
        {"name": "numbers", "shape": [1, 2], "datatype": "FP32", "data": [None, MEANS[1]]},
        {"name": "city", "shape": [1, 1], "datatype": "BYTES", "data": ["oslo"]},
    ]
    expected = api.call("POST", "/v2/models/visits/infer", {"inputs": in_json}).body["outputs"]
    asked = [{"name": "label", "parameters": {"binary_data": True}}, {"name": "probabilities"}]
    status, reply, data = post_visit(api, *visit(outputs=asked))
    assert status == 200
    assert reply["outputs"][1] == expected[0]
    assert (reply["outputs"][0]["name"], reply["outputs"][0]["shape"]) == ("label", [1])
    label = expected[1]["data"][0].encode()
    assert label in {b"yes", b"no"}
    assert data == struct.pack("<I", len(label)) + label


def test_only_the_outputs_that_are_asked_for_come(api: Api) -> None:
    _, reply, _ = post_visit(api, *visit(outputs=[{"name": "label"}]))
    assert [output["name"] for output in reply["outputs"]] == ["label"]
    _, reply, _ = post_visit(api, *visit())
    assert [output["name"] for output in reply["outputs"]] == ["probabilities", "label"]


@pytest.mark.parametrize(
    ("request_", "data"),
    [
        ({"inputs": [binary_tensor()]}, b""),
        ({"inputs": [binary_tensor()]}, PIXELS[:-1]),
        ({"inputs": [binary_tensor()]}, PIXELS + b"\0"),
        ({"inputs": [tensor()]}, b"\0"),
        ({"inputs": [binary_tensor(data=SAMPLE)]}, PIXELS),
        ({"inputs": [binary_tensor(parameters={})]}, b""),
        ({"inputs": [binary_tensor(parameters={"binary_data_size": 12})]}, PIXELS[:12]),
        ({"inputs": [binary_tensor(parameters={"binary_data_size": -1})]}, b""),
        ({"inputs": [binary_tensor(parameters={"binary_data_size": True})]}, b"\0"),
        ({"inputs": [binary_tensor(parameters={"binary_data_size": "16"})]}, PIXELS),
        ({"inputs": [binary_tensor(parameters={"binary_data_size": 2**62})]}, PIXELS),
        ({"inputs": [binary_tensor(shape=[2**62, 4])]}, PIXELS),
        ({"inputs": [binary_tensor(), binary_tensor()]}, PIXELS * 2),
        ({"inputs": [binary_tensor(datatype="FP64")]}, PIXELS),
        ({"inputs": [binary_tensor()]}, np.array([1, 2, 3, np.nan], dtype="<f4").tobytes()),
        ({"inputs": [binary_tensor()]}, np.array([1, 2, 3, np.inf], dtype="<f4").tobytes()),
        ({"inputs": [tensor(parameters={"shared_memory_region": "x"})]}, b""),
        ({"inputs": [tensor(parameters={"x": {}})]}, b""),
        ({"inputs": [tensor()], "outputs": [{"name": "other"}]}, b""),
        ({"inputs": [tensor()], "outputs": [{"name": "probabilities"}] * 2}, b""),
        ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, b""),
        (
            {
                "inputs": [tensor()],
                "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}],
            },
            b"",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_not_held_against_the_model(
    api: Api, request_: Any, data: bytes
) -> None:
    api.host.answering("digits").counter.close(1.0)
    status, reply, _ = infer(api, request_, data)
    assert (status, reply["code"]) == (400, "invalid_message")
    assert api.host.answering("digits").counter.close(2.0) is None


@pytest.mark.parametrize("length", ["-1", "1e2", "", "0x10", "٣", "2147483648", "9" * 5000, "0", "5"])
def test_a_header_that_does_not_say_where_the_json_ends_is_refused(api: Api, length: str) -> None:
    body = msgspec.json.encode({"inputs": [tensor()]})
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    head += f"inference-header-content-length: {length}\r\ncontent-length: {len(body)}\r\n\r\n"
    assert api.raw(head.encode() + body).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
def test_a_packed_request_is_the_same_request(api: Api, encoding: str, packed: Any) -> None:
    text = msgspec.json.encode({"inputs": [binary_tensor()]})
    status, _, body = api.send(
        "POST",
        INFER,
        packed(text + PIXELS),
        Content_Encoding=encoding,
        Inference_Header_Content_Length=str(len(text)),
    )
    assert status == 200
    assert msgspec.json.decode(body)["outputs"][0]["data"] == probabilities(api)


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"no gzip", 400),
        ("deflate", gzip.compress(b"{}", mtime=0), 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-3], 400),
        ("gzip", gzip.compress(b"{}", mtime=0) * 2, 400),
        ("br", b"{}", 400),
        ("gzip, gzip", b"{}", 400),
        ("gzip", gzip.compress(bytes(LIMIT_BYTES + 1), mtime=0), 413),
        ("deflate", zlib.compress(bytes(10_000_000)), 413),
    ],
)
def test_what_is_not_packed_as_it_says_or_unpacks_to_too_much_is_refused(
    api: Api, encoding: str, body: bytes, status: int
) -> None:
    got, _, _ = api.send("POST", INFER, body, Content_Encoding=encoding)
    assert got == status
    assert api.call("GET", "/v2/health/live").status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 19_000,
        b'{"inputs":' + b"[" * 9_000 + b"]" * 9_000 + b"}",
        b'{"inputs":[],"parameters":' + b'{"a":' * 3_000 + b"1" + b"}" * 3_001,
        b'{"inputs":[{"name":"pixels","shape":[1,4],"datatype":"FP32","data":' + b"[" * 9_000 + b"]" * 9_003,
        b'{"inputs":[{"name":"pixels","shape":[1,4],"datatype":"FP32","data":['
        + b"[" * 500
        + b"]" * 500
        + b"]}]}",
        b'{"inputs":[{"name":"pixels","shape":[1' + b"0" * 15_000 + b',4],"datatype":"FP32","data":[1]}]}',
        b"\xff\xfe",
    ],
)
def test_a_bomb_of_json_is_refused(api: Api, body: bytes) -> None:
    status, _, answer = api.send("POST", INFER, body)
    assert (status, msgspec.json.decode(answer)["code"]) == (400, "invalid_message")
    assert api.call("GET", "/v2/health/live").status == 200


def test_the_version_may_be_named_and_another_one_does_not_answer(api: Api) -> None:
    base = "/v2/models/digits/versions"
    assert api.call("POST", f"{base}/1/infer", {"inputs": [tensor()]}).body["model_version"] == "1"
    for path in ("", "/ready", "/config", "/stats"):
        assert api.call("GET", f"{base}/1{path}").status == 200
        refused = api.call("GET", f"{base}/2{path}")
        assert (refused.status, refused.body["code"]) == (404, "not_found")
    assert api.call("POST", f"{base}/x/infer", {"inputs": [tensor()]}).status == 404


def test_a_model_that_does_not_answer_yet_is_told_from_one_that_is_not_here(api: Api) -> None:
    waiting = api.call("GET", f"/v2/models/{LOADING.model}/ready")
    assert (waiting.status, waiting.body) == (400, {"name": "later", "ready": False})
    refused = api.call("POST", f"/v2/models/{LOADING.model}/infer", {"inputs": [tensor()]})
    assert (refused.status, refused.body["code"]) == (503, "unavailable")
    assert api.call("GET", "/v2/models/nobody/ready").status == 404


def test_the_documents_describe_what_is_here(api: Api) -> None:
    extensions = api.call("GET", "/v2").body["extensions"]
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(extensions)
    config = api.call("GET", "/v2/models/visits/config").body
    assert config["input"][1] == {"name": "city", "data_type": "TYPE_STRING", "dims": [-1, 1]}
    assert config["output"][0] == {"name": "probabilities", "data_type": "TYPE_FP32", "dims": [-1, 2]}
    everything = api.call("POST", "/v2/repository/index").body
    assert {entry["name"]: entry["state"] for entry in everything} == {
        **dict.fromkeys(("digits", "frames", "lite", "visits"), "READY"),
        "later": "UNAVAILABLE",
    }
    ready = api.call("POST", "/v2/repository/index", {"ready": True}).body
    assert [entry["version"] for entry in ready] == ["1"] * 4


@pytest.mark.parametrize("action", ["load", "unload"])
def test_what_runs_is_the_hubs_to_say(api: Api, action: str) -> None:
    reply = api.call("POST", f"/v2/repository/models/digits/{action}", {})
    assert (reply.status, reply.body["code"]) == (403, "not_permitted")
    assert "hub" in reply.body["error"]
    assert api.call("GET", "/v2/models/digits/ready").status == 200


def test_statistics_count_requests_and_samples(api: Api) -> None:
    def lite() -> dict[str, Any]:
        (entry,) = api.call("GET", "/v2/models/lite/stats").body["model_stats"]
        assert isinstance(entry, dict)
        return entry

    before = lite()
    for _ in range(3):
        api.call("POST", "/v2/models/lite/infer", {"inputs": [tensor(shape=[2, 4], data=SAMPLE * 2)]})
    api.call("POST", "/v2/models/lite/infer", {"inputs": []})
    after = lite()
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] == 3
    grown = {
        part: after["inference_stats"][part]["count"] - before["inference_stats"][part]["count"]
        for part in after["inference_stats"]
    }
    measured = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    assert grown == {**dict.fromkeys(measured, 3), "fail": 1, "cache_hit": 0, "cache_miss": 0}
    spent = {part: after["inference_stats"][part]["ns"] for part in measured}
    assert all(spent.values())
    assert spent["success"] >= sum(spent.values()) - spent["success"]
    assert after["last_inference"] > 1_600_000_000_000
    names = {entry["name"] for entry in api.call("GET", "/v2/models/stats").body["model_stats"]}
    assert names == {"digits", "frames", "lite", "visits"}


@pytest.mark.parametrize(
    "data",
    [
        b"HEAD /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET http://x/v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /v2/%ff%00 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /v2 HTTP/1.0\r\n\r\n",
    ],
)
def test_rare_requests_are_answered(api: Api, data: bytes) -> None:
    answer = api.raw(data)
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 200"))
    if data.startswith(b"HEAD"):
        assert answer.endswith(b"\r\n\r\n")


def test_the_port_on_loopback_answers_the_same(api: Api) -> None:
    for host in ("127.0.0.1", "localhost"):
        connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
        connection.request(
            "POST", INFER, msgspec.json.encode({"inputs": [tensor()]}), {"Host": f"{host}:{api.port}"}
        )
        reply = msgspec.json.decode(connection.getresponse().read())
        connection.close()
        assert reply["outputs"][0]["data"] == probabilities(api)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "models.example"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Host": "localhost", "Origin": "http://models.example"},
        {"Host": "localhost", "Origin": "null"},
    ],
)
def test_a_web_page_cannot_use_the_port(api: Api, headers: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    connection.request("POST", INFER, msgspec.json.encode({"inputs": [tensor()]}), headers)
    response = connection.getresponse()
    assert (response.status, msgspec.json.decode(response.read())["code"]) == (403, "not_permitted")
    connection.close()


def test_a_request_that_is_too_large_is_told_so_although_it_is_still_being_sent(api: Api) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    connection.request("POST", INFER, bytes(20_000_000))
    response = connection.getresponse()
    assert (response.status, msgspec.json.decode(response.read())["code"]) == (413, "message_too_large")
    connection.close()


def test_a_client_that_never_reads_holds_up_nobody(api: Api) -> None:
    request = b"GET /v2/models/digits HTTP/1.1\r\nhost: x\r\n\r\n" * 100
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(api.path))
        sock.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):  # from some point on the server takes no more
            while sent < 100_000_000:
                sent += sock.send(request)
        assert api.call("POST", INFER, {"inputs": [tensor()]}).status == 200


def test_shared_memory_is_off_by_default(api: Api) -> None:
    assert "system_shared_memory" not in api.call("GET", "/v2").body["extensions"]
    route = "/v2/systemsharedmemory"
    for method, path in (("GET", "/status"), ("POST", "/region/a/register"), ("POST", "/unregister")):
        reply = api.call(method, route + path, {"key": "/a", "byte_size": 1} if "register" in path else None)
        assert (reply.status, reply.body["code"]) == (404, "not_found")
        assert "not offered" in reply.body["error"]
    place = {"shared_memory_region": "a", "shared_memory_byte_size": 16}
    for request in (
        {"inputs": [{**binary_tensor(), "parameters": place}]},
        {"inputs": [tensor()], "outputs": [{"name": "probabilities", "parameters": place}]},
    ):
        status, reply, _ = infer(api, request)
        assert status == 400
        assert "shared_memory_region" in reply["error"]
