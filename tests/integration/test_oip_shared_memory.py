"""The system shared memory extension: tensors in files of ``/dev/shm``, and what a hostile client may try."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.serving.shared_memory import MAX_REGIONS, SHARE_OF_LIMIT
from fleet.protocol.text import decode_text, encode_text
from tests.support.agent_device import SAMPLE, Reply
from tests.support.inference_server import LIMIT_BYTES, Api, tensor
from tests.support.shared_memory import ROUTE, SharedFile, inside, register, unregister

PIXELS = np.array([SAMPLE], dtype="<f4").tobytes()
SIZE_BYTES = 4096
OUTPUT_AT = 1024
INFER = "/v2/models/digits/infer"


@pytest.fixture(name="api", scope="module")
def api_fixture() -> Iterator[Api]:
    with tempfile.TemporaryDirectory() as folder:  # a test's own folder has too long a path for a socket
        api = Api(Path(folder), shared_memory=True)
        yield api
        api.close()
        assert api.faults == []


@pytest.fixture(name="file")
def file_fixture(api: Api) -> Iterator[SharedFile]:
    """A file that begins with the sample; afterwards there are no regions, and the server answers."""
    file = SharedFile(PIXELS.ljust(SIZE_BYTES, b"\xff"))
    yield file
    file.remove()
    assert unregister(api) == (200, {})
    assert api.call("GET", f"{ROUTE}/status") == (200, [])
    assert api.call("POST", INFER, {"inputs": [tensor()]}).status == 200


def shared_tensor(region: str = "in", byte_size: int = len(PIXELS), offset: int = 0) -> dict[str, Any]:
    found = tensor(parameters=inside(region, byte_size, offset))
    del found["data"]
    return found


def infer(api: Api, *inputs: dict[str, Any], outputs: Any = ()) -> Reply:
    return api.call("POST", INFER, {"inputs": inputs, "outputs": outputs})


def expected(api: Api) -> list[float]:
    values: list[float] = infer(api, tensor()).body["outputs"][0]["data"]
    return values


def to(region: str, byte_size: int, offset: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Ask for the output in a region."""
    return [{"name": "probabilities", "parameters": {**inside(region, byte_size, offset), **more}}]


def refused(reply: Reply, status: int, words: str) -> None:
    assert reply.status == status, reply
    assert words in reply.body["error"]


def test_the_extension_is_told_of(api: Api) -> None:
    assert "system_shared_memory" in api.call("GET", "/v2").body["extensions"]


def test_a_region_is_told_of_until_it_is_unregistered(api: Api, file: SharedFile) -> None:
    assert register(api, "a", file.key, 100, offset=28) == (200, {})
    assert register(api, "b", file.name, SIZE_BYTES) == (200, {})
    a = {"name": "a", "key": file.key, "offset": 28, "byte_size": 100}
    b = {"name": "b", "key": file.name, "offset": 0, "byte_size": SIZE_BYTES}
    assert api.call("GET", f"{ROUTE}/status") == (200, [a, b])
    assert api.call("GET", f"{ROUTE}/region/a/status") == (200, [a])
    assert unregister(api, "a") == (200, {})
    refused(api.call("GET", f"{ROUTE}/region/a/status"), 404, "'a'")
    assert api.call("GET", f"{ROUTE}/status") == (200, [b])
    assert unregister(api, "a") == (200, {})  # as Triton does


def test_tensors_go_through_memory(api: Api, file: SharedFile) -> None:
    register(api, "in", file.key, OUTPUT_AT)
    register(api, "out", file.key, SIZE_BYTES - OUTPUT_AT, offset=OUTPUT_AT)
    reply = infer(api, shared_tensor(), outputs=to("out", 64, offset=8))
    (output,) = reply.body["outputs"]
    parameters = output.pop("parameters")
    assert output == {"name": "probabilities", "shape": [1, 3], "datatype": "FP32"}
    assert parameters == {
        "shared_memory_region": "out",
        "shared_memory_byte_size": 12,
        "shared_memory_offset": 8,
    }
    held, start = file.read(), OUTPUT_AT + 8
    assert np.frombuffer(held, "<f4", 3, start).tolist() == pytest.approx(expected(api))
    assert held[:start] == PIXELS.ljust(start, b"\xff")
    assert held[start + 12 :] == bytes([255]) * (SIZE_BYTES - start - 12)


def test_either_end_alone_goes_through_memory(api: Api, file: SharedFile) -> None:
    register(api, "in", file.key, SIZE_BYTES)
    assert infer(api, shared_tensor()).body["outputs"][0]["data"] == pytest.approx(expected(api))
    assert infer(api, tensor(), outputs=to("in", 12, 4)).status == 200
    assert np.frombuffer(file.read(), "<f4", 3, 4).tolist() == pytest.approx(expected(api))


def test_each_request_sees_what_the_memory_holds_then(api: Api, file: SharedFile) -> None:
    register(api, "in", file.key, SIZE_BYTES)
    first = infer(api, shared_tensor()).body["outputs"][0]["data"]
    file.write(np.array([[5.0, -5.0, 0.0, 1.0]], dtype="<f4").tobytes())
    assert infer(api, shared_tensor()).body["outputs"][0]["data"] != first


def test_values_that_change_meanwhile_are_checked_as_they_are_used(api: Api, file: SharedFile) -> None:
    register(api, "in", file.key, SIZE_BYTES)
    good, bad = PIXELS, np.array([[np.nan, np.inf, 0, 0]], dtype="<f4").tobytes()
    ended = threading.Event()

    def keep_changing() -> None:
        with file.path.open("r+b") as held, mmap.mmap(held.fileno(), SIZE_BYTES) as memory:
            while not ended.is_set():
                memory[: len(bad)] = bad
                memory[: len(good)] = good

    thread = threading.Thread(target=keep_changing)
    thread.start()
    try:
        statuses = {infer(api, shared_tensor()).status for _ in range(200)}
    finally:
        ended.set()
        thread.join()
    assert statuses <= {200, 400}


def test_text_and_bytes_and_json_mix(api: Api) -> None:
    city = encode_text(np.array([["lyon"], ["Århus – 東京"]], dtype=object))
    file = SharedFile(city.ljust(SIZE_BYTES, b"\0"))
    register(api, "text", file.key, SIZE_BYTES)
    numbers = np.array([[0.0, 0.0], [1.0, 5.0]], dtype="<f4").tobytes()
    city_tensor = {"name": "city", "shape": [2, 1], "datatype": "BYTES"}
    request = {
        "inputs": [
            {
                "name": "numbers",
                "shape": [2, 2],
                "datatype": "FP32",
                "parameters": {"binary_data_size": len(numbers)},
            },
            {**city_tensor, "parameters": inside("text", len(city))},
        ],
        "outputs": [
            {"name": "label", "parameters": inside("text", 64, OUTPUT_AT)},
            {"name": "probabilities", "parameters": {"binary_data": True}},
        ],
    }
    text = msgspec.json.encode(request)
    headers = {"Inference_Header_Content_Length": str(len(text))}
    status, got, body = api.send("POST", "/v2/models/visits/infer", text + numbers, **headers)
    assert status == 200, body
    length = int(got["Inference-Header-Content-Length"])
    label, probabilities = msgspec.json.decode(body[:length])["outputs"]
    assert probabilities["parameters"] == {"binary_data_size": len(body) - length}
    scores = np.frombuffer(body[length:], "<f4").reshape(2, 2)
    size_bytes = label["parameters"]["shared_memory_byte_size"]
    labels = decode_text(file.read()[OUTPUT_AT : OUTPUT_AT + size_bytes], label["shape"])
    assert labels.tolist() == [("no", "yes")[number] for number in scores.argmax(axis=1)]
    file.remove()
    assert unregister(api).status == 200


def test_the_callers_own_file_need_not_have_a_name_any_more(api: Api, file: SharedFile) -> None:
    register(api, "in", file.key, SIZE_BYTES)
    file.remove()
    assert infer(api, shared_tensor()).status == 200


def test_what_is_taken_away_again_is_an_error_and_no_crash(api: Api, file: SharedFile) -> None:
    register(api, "in", file.key, SIZE_BYTES)
    assert infer(api, shared_tensor(), outputs=to("in", 12, 3 * OUTPUT_AT)).status == 200
    file.truncate(len(PIXELS))
    assert infer(api, shared_tensor()).status == 200
    refused(infer(api, tensor(), outputs=to("in", 12, 3 * OUTPUT_AT)), 400, "become shorter")
    assert len(file.read()) == len(PIXELS)  # nobody made it longer again
    file.truncate(0)
    refused(infer(api, shared_tensor()), 400, "become shorter")
    file.write(PIXELS)
    assert infer(api, shared_tensor()).status == 200


@pytest.mark.parametrize(
    ("parameters", "status", "words"),
    [
        ({"shared_memory_region": "in"}, 400, "does not say where"),
        ({"shared_memory_byte_size": 16}, 400, "does not say where"),
        ({"shared_memory_offset": 0}, 400, "does not say where"),
        ({**inside("in", 16), "shared_memory_region": 7}, 400, "does not say where"),
        ({**inside("in", 16), "shared_memory_byte_size": True}, 400, "does not say where"),
        ({**inside("in", 16), "shared_memory_byte_size": 16.0}, 400, "does not say where"),
        ({**inside("in", 16), "shared_memory_offset": -1}, 400, "does not say where"),
        ({**inside("in", 16), "shared_memory_byte_size": "16"}, 400, "does not say where"),
        (inside("in", -16), 400, "does not say where"),
        (inside("other", 16), 404, "'other'"),
        (inside("in", 16, OUTPUT_AT - 15), 400, "1025 of region 'in'"),
        (inside("in", 2**63, 2**63), 400, "of region 'in'"),
        (inside("in", 16, 2**64 - 16), 400, "of region 'in'"),
        (inside("in", 0), 400, "takes 16 bytes; 0 came"),
        (inside("in", 15), 400, "takes 16 bytes; 15 came"),
        (inside("in", OUTPUT_AT), 400, "takes 16 bytes; 1024 came"),
        (inside("in", 16, 4), 400, "not finite"),
        ({**inside("in", 16), "binary_data_size": 0}, 400, "both"),
        ({**inside("in", 16), "classification": 2}, 400, "classification"),
    ],
)
def test_an_input_that_is_not_there_is_refused(
    api: Api, file: SharedFile, parameters: dict[str, Any], status: int, words: str
) -> None:
    register(api, "in", file.key, OUTPUT_AT)
    refused(infer(api, {**shared_tensor(), "parameters": parameters}), status, words)


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        (to("in", 11), 413, "has 12 bytes; there is room for 11"),
        (to("other", 12), 404, "'other'"),
        (to("in", 12, OUTPUT_AT - 11), 400, "of region 'in'"),
        (to("in", 12, binary_data=True), 400, "both"),
        ([*to("in", 12), *to("in", 12)], 400, "each once"),
    ],
)
def test_an_output_that_cannot_go_there_is_refused(
    api: Api, file: SharedFile, asked: Any, status: int, words: str
) -> None:
    register(api, "in", file.key, OUTPUT_AT)
    refused(infer(api, shared_tensor(), outputs=asked), status, words)
    assert file.read() == PIXELS.ljust(SIZE_BYTES, b"\xff")


def test_data_and_memory_at_once_are_refused(api: Api, file: SharedFile) -> None:
    register(api, "in", file.key, OUTPUT_AT)
    refused(infer(api, tensor(parameters=inside("in", 16))), 400, "data twice")


def test_inputs_are_no_larger_than_a_request_may_be(api: Api, file: SharedFile) -> None:
    file.truncate(LIMIT_BYTES)
    register(api, "in", file.key, LIMIT_BYTES)
    many = [{**shared_tensor("in", LIMIT_BYTES // 4), "name": f"x{number}"} for number in range(5)]
    refused(infer(api, *many), 413, "larger than")
    refused(infer(api, *many[:4]), 400, "takes the inputs pixels")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "key"),
        ({"key": "/x"}, "byte_size"),
        ({"byte_size": 16}, "key"),
        ({"key": 7, "byte_size": 16}, "key"),
        ({"key": "/x", "byte_size": 0}, "byte_size"),
        ({"key": "/x", "byte_size": -1}, "byte_size"),
        ({"key": "/x", "byte_size": 2**63}, "byte_size"),
        ({"key": "/x", "byte_size": 16, "offset": -1}, "offset"),
        ({"key": "/x", "byte_size": 16, "offset": 2**63}, "offset"),
        ({"key": "/x", "byte_size": 16, "offset": 2**70}, "offset"),
        ({"key": "/x", "byte_size": 1.5}, "byte_size"),
        ([], "object"),
    ],
)
def test_what_is_no_request_to_register_is_refused(api: Api, file: SharedFile, body: Any, words: str) -> None:
    if isinstance(body, dict) and body.get("key") == "/x":
        body["key"] = file.key
    refused(api.call("POST", f"{ROUTE}/region/a/register", body), 400, words)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        ".",
        "/.",
        "..",
        "/..",
        "//x",
        "../etc/passwd",
        "/../etc/passwd",
        "a/b",
        "/a/",
        "x\0y",
        "a" * 256,
    ],
)
def test_only_names_in_the_folder_of_shared_memory_are_names(api: Api, file: SharedFile, key: str) -> None:
    assert file.path.exists()
    refused(register(api, "a", key, 1), 400, repr(key)[:20])


def test_a_region_has_a_name_of_its_own(api: Api, file: SharedFile) -> None:
    register(api, "a", file.key, 16)
    refused(register(api, "a", file.key, 16), 409, "registered already")
    refused(register(api, "x" * 129, file.key, 16), 400, "1 to 128")
    refused(register(api, "", file.key, 16), 400, "1 to 128")
    refused(register(api, "b", "/muster-test-nobody", 16), 404, "no shared memory")


def test_a_region_is_no_larger_than_its_file(api: Api, file: SharedFile) -> None:
    refused(register(api, "a", file.key, SIZE_BYTES + 1), 400, "4096 bytes")
    refused(register(api, "a", file.key, 2, offset=SIZE_BYTES - 1), 400, "4096 bytes")
    refused(register(api, "a", file.key, 1, offset=2**63 - 1), 400, "4096 bytes")
    assert register(api, "a", file.key, 1, offset=SIZE_BYTES - 1).status == 200


def test_regions_are_few_and_small(api: Api, file: SharedFile) -> None:
    file.truncate(SHARE_OF_LIMIT * LIMIT_BYTES + 1)
    refused(register(api, "a", file.key, SHARE_OF_LIMIT * LIMIT_BYTES + 1), 413, "together")
    assert register(api, "a", file.key, SHARE_OF_LIMIT * LIMIT_BYTES - MAX_REGIONS + 1).status == 200
    for number in range(MAX_REGIONS - 1):
        assert register(api, f"b{number}", file.key, 1).status == 200
    refused(register(api, "c", file.key, 1), 413, "at a time")
    unregister(api, "b0")
    refused(register(api, "c", file.key, 2), 413, "together")
    assert register(api, "c", file.key, 1).status == 200


def times_open(file: SharedFile) -> int:
    """Return how many descriptors this process, which is the server's, has of a file."""
    times = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread has closed it meanwhile
            times += file.path.samefile(each)
    return times


def test_files_are_closed_when_regions_are_gone(api: Api, file: SharedFile) -> None:
    for number in range(MAX_REGIONS):
        register(api, str(number), file.key, 1)
    refused(register(api, "a", file.key, SIZE_BYTES + 1), 413, "at a time")
    assert times_open(file) == MAX_REGIONS
    unregister(api)
    assert times_open(file) == 0
    for _ in range(3):
        refused(register(api, "a", file.key, SIZE_BYTES + 1), 400, "4096 bytes")
    assert times_open(file) == 0


def test_what_is_no_file_of_the_callers_is_refused(api: Api, file: SharedFile) -> None:
    beside = file.path.with_name(file.name + "-beside")
    key = f"/{beside.name}"
    beside.symlink_to(file.path)
    refused(register(api, "a", key, 16), 400, "symbolic link")
    beside.unlink()
    beside.mkdir()
    refused(register(api, "a", key, 16), 400, "cannot be opened")
    beside.rmdir()
    os.mkfifo(beside)
    refused(register(api, "a", key, 16), 400, "another kind of file")
    beside.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root makes devices and gives files away.")
def test_another_accounts_file_and_a_device_are_refused(api: Api, file: SharedFile) -> None:
    device = file.path.with_name(file.name + "-device")
    os.mknod(device, 0o666 | 0o020000, os.makedev(1, 5))  # /dev/zero
    assert register(api, "a", f"/{device.name}", 16).status in {
        400,
        403,
    }  # 403: devices cannot be opened there
    device.unlink()
    os.chown(file.path, 12345, -1)
    refused(register(api, "a", file.key, 16), 403, "another account")
    os.chown(file.path, os.geteuid(), -1)
    assert register(api, "a", file.key, 16).status == 200


def test_an_owner_cannot_keep_the_agent_waiting(api: Api, file: SharedFile) -> None:
    former = signal.signal(signal.SIGIO, signal.SIG_IGN)  # how the kernel asks for a lease back
    try:
        with file.path.open("r+b") as held:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            refused(register(api, "a", file.key, 16), 400, "cannot be opened")
    finally:
        signal.signal(signal.SIGIO, former)
    assert register(api, "a", file.key, 16).status == 200


def test_there_are_no_other_routes(api: Api, file: SharedFile) -> None:
    register(api, "a", file.key, 16)
    for method, path in (
        ("GET", f"{ROUTE}/region/a/register"),
        ("POST", f"{ROUTE}/status"),
        ("GET", f"{ROUTE}/unregister"),
        ("POST", f"{ROUTE}/register"),
        ("GET", ROUTE),
        ("GET", "/v2/cudasharedmemory/status"),
        ("POST", "/v2/cudasharedmemory/region/a/register"),
        ("POST", "/v2/cudasharedmemory/unregister"),
    ):
        refused(api.call(method, path), 404, "There is no")
    refused(api.call("POST", f"{ROUTE}/unregister", {}), 400, "no body")
    assert len(api.call("GET", f"{ROUTE}/status").body) == 1
