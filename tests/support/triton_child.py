"""What ``tritonclient`` makes of our server; runs in that client's own environment, with nothing of ours.

``ADDRESS``: make every call below and print what each returned as JSON, by the call's name. A refusal is
``{"error": message, "status": status}``. Arrays are ``{"shape": …, "dtype": …, "data": …}``.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tritonclient.http as triton  # it is in an environment of its own only
import tritonclient.utils.shared_memory as shm
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

ADDRESS = sys.argv[1]
SAMPLE = np.array([[0.9, 0.1, 0.4, 0.2]], dtype=np.float32)
Client = triton.InferenceServerClient


def pixels(values: Any = SAMPLE, *, binary: bool = True, name: str = "pixels", datatype: str = "FP32") -> Any:
    """Return the input of the model of four pixels."""
    return triton.InferInput(name, list(values.shape), datatype).set_data_from_numpy(values, binary)


def visit(*, binary: bool) -> list[Any]:
    """Return the inputs of the model of numbers, which may be missing, and text."""
    numbers = np.array([[0.0, 0.0], [1.0, 5.0]], dtype=np.float32)
    cities = np.array([["lyon"], ["Århus – 東京"]], dtype=object)
    return [
        triton.InferInput("numbers", [2, 2], "FP32").set_data_from_numpy(numbers, binary),
        triton.InferInput("city", [2, 1], "BYTES").set_data_from_numpy(cities, binary),
    ]


def plain(array: Any) -> dict[str, Any]:
    """Return an array as JSON can hold it."""
    data = [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]
    return {"shape": list(array.shape), "dtype": str(array.dtype), "data": data}


def answered(result: Any, *names: str) -> dict[str, Any]:
    """Return an answer's document and its arrays."""
    arrays = {name: plain(result.as_numpy(name)) for name in names or ("probabilities",)}
    return {"document": result.get_response(), "arrays": arrays}


def infer(
    client: Any,
    *,
    given: Any = None,
    asked: Any = None,
    names: tuple[str, ...] = (),
    model: str = "digits",
    **options: Any,
) -> dict[str, Any]:
    """Ask for predictions."""
    return answered(client.infer(model, given or [pixels()], outputs=asked, **options), *names)


def asking(*names: str, binary: bool) -> list[Any]:
    """Return requests for outputs."""
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def infer_at_once(client: Any) -> list[Any]:
    """Ask for many predictions at once."""
    waiting = [client.async_infer("digits", [pixels(SAMPLE * scale)]) for scale in range(1, 21)]
    return [answered(each.get_result())["arrays"]["probabilities"] for each in waiting]


def infer_by_parts(client: Any) -> dict[str, Any]:
    """Let the client make the request's bytes and read the answer's, and carry them otherwise."""
    body, length = client.generate_request_body([pixels()], request_id="by parts")
    connection = http.client.HTTPConnection(ADDRESS, timeout=10)
    connection.request(
        "POST", "/v2/models/digits/infer", body, {"Inference-Header-Content-Length": str(length)}
    )
    response = connection.getresponse()
    header = response.getheader("Inference-Header-Content-Length")
    result = client.parse_response_body(response.read(), header_length=int(header or 0))
    connection.close()
    return answered(result)


def shrunk(client: Any) -> dict[str, Any]:
    """Send bytes of one sample as those of two."""
    return infer(client, given=[pixels().set_shape([2, 4])])


def in_shared_memory(client: Any) -> dict[str, Any]:
    """Pass numbers in and scores out by shared memory, text in and out by another region of it."""
    name = f"muster-test-{uuid.uuid4().hex}"
    memory = shm.create_shared_memory_region("numbers", f"/{name}", 4096, create_only=True)
    inputs = visit(binary=True)
    numbers, text = (each._get_binary_data() for each in inputs)  # as the client would send them
    shm.set_shared_memory_region(memory, [np.frombuffer(numbers, np.uint8)])
    shm.set_shared_memory_region(memory, [np.frombuffer(text, np.uint8)], offset=1024)
    try:
        client.register_system_shared_memory("numbers", f"/{name}", 1024)
        client.register_system_shared_memory("text", f"/{name}", 3072, offset=1024)
        told = client.get_system_shared_memory_status(), client.get_system_shared_memory_status("text")
        inputs[0].set_shared_memory("numbers", len(numbers))
        inputs[1].set_shared_memory("text", len(text))
        scores, label = (triton.InferRequestedOutput(each) for each in BOTH)
        scores.set_shared_memory("numbers", 64, offset=512)
        label.set_shared_memory("text", 64, offset=1024)
        result = client.infer("visits", inputs, outputs=[scores, label])
        found = {
            "document": result.get_response(),
            "arrays": {
                "probabilities": plain(shm.get_contents_as_numpy(memory, np.float32, [2, 2], 512)),
                "label": plain(shm.get_contents_as_numpy(memory, np.object_, [2], 2048)),
            },
        }
        client.unregister_system_shared_memory("numbers")
        left = client.get_system_shared_memory_status()
        client.unregister_system_shared_memory()
        gone = client.get_system_shared_memory_status()
    finally:
        shm.destroy_shared_memory_region(memory)
    return {**found, "statuses": [*told, left, gone], "key": f"/{name}"}


def in_asyncio(_client: Any) -> dict[str, Any]:
    """Make some of the calls with the client for asyncio."""

    async def run() -> dict[str, Any]:
        async with aio.InferenceServerClient(ADDRESS) as client:
            answers = await asyncio.gather(*(client.infer("digits", [pixels()]) for _ in range(5)))
            return {
                "live": await client.is_server_live(),
                "ready": await client.is_model_ready("digits", "1"),
                "index": await client.get_model_repository_index(),
                "answers": [answered(answer)["arrays"]["probabilities"] for answer in answers],
            }

    return asyncio.run(run())


JSON, BYTES = [pixels(binary=False)], [pixels()]
DOUBLE = [pixels(SAMPLE.astype(np.float64), datatype="FP64")]
BOTH = ("probabilities", "label")

CALLS: dict[str, Callable[[Any], Any]] = {
    "is_server_live": Client.is_server_live,
    "is_server_ready": Client.is_server_ready,
    "is_model_ready": lambda client: client.is_model_ready("digits"),
    "is_version_ready": lambda client: client.is_model_ready("digits", "1"),
    "is_other_version_ready": lambda client: client.is_model_ready("digits", "2"),
    "is_other_model_ready": lambda client: client.is_model_ready("nobody"),
    "server_metadata": Client.get_server_metadata,
    "model_metadata": lambda client: client.get_model_metadata("digits"),
    "version_metadata": lambda client: client.get_model_metadata("digits", "1"),
    "other_version_metadata": lambda client: client.get_model_metadata("digits", "2"),
    "model_config": lambda client: client.get_model_config("visits"),
    "other_model_config": lambda client: client.get_model_config("nobody"),
    "repository_index": Client.get_model_repository_index,
    "load_model": lambda client: client.load_model("digits"),
    "unload_model": lambda client: client.unload_model("digits"),
    "json_in_json_out": partial(infer, given=JSON, asked=asking("probabilities", binary=False)),
    "json_in_bytes_out": partial(infer, given=JSON, asked=asking("probabilities", binary=True)),
    "bytes_in_json_out": partial(infer, given=BYTES, asked=asking("probabilities", binary=False)),
    "bytes_in_bytes_out": partial(infer, given=BYTES, asked=asking("probabilities", binary=True)),
    "defaults": infer,
    "version": partial(infer, model_version="1"),
    "id_and_parameters": partial(
        infer, request_id="seventeen", priority=2, timeout=1_000_000, parameters={"mine": "x"}
    ),
    "text_as_json": partial(
        infer, model="visits", given=visit(binary=False), asked=asking(*BOTH, binary=False), names=BOTH
    ),
    "text_as_bytes": partial(
        infer, model="visits", given=visit(binary=True), asked=asking(*BOTH, binary=True), names=BOTH
    ),
    "one_output": partial(
        infer, model="visits", given=visit(binary=True), asked=asking("label", binary=True), names=("label",)
    ),
    "gzip_bytes": partial(infer, request_compression_algorithm="gzip"),
    "deflate_bytes": partial(infer, request_compression_algorithm="deflate"),
    "gzip_json": partial(infer, given=JSON, request_compression_algorithm="gzip"),
    "packed_answer": partial(infer, response_compression_algorithm="gzip"),
    "at_once": infer_at_once,
    "by_parts": infer_by_parts,
    "in_asyncio": in_asyncio,
    "wrong_model": partial(infer, model="nobody"),
    "wrong_version": partial(infer, model_version="2"),
    "wrong_name": partial(infer, given=[pixels(name="other")]),
    "wrong_shape": partial(infer, given=[pixels(np.zeros((1, 5), np.float32))]),
    "wrong_rank": partial(infer, given=[pixels(np.zeros(4, np.float32))]),
    "wrong_datatype": partial(infer, given=DOUBLE),
    "wrong_size": shrunk,
    "wrong_output": partial(infer, asked=asking("other", binary=True)),
    "missing_input": partial(infer, model="visits", given=visit(binary=True)[:1]),
    "not_finite": partial(infer, given=[pixels(SAMPLE * np.float32(np.nan))]),
    "in_shared_memory": in_shared_memory,
    "unknown_region": partial(
        infer, given=[triton.InferInput("pixels", [1, 4], "FP32").set_shared_memory("region", 16)]
    ),
    "unknown_memory": lambda client: client.register_system_shared_memory(
        "region", "/muster-test-nobody", 16
    ),
    "cuda_memory": lambda client: client.register_cuda_shared_memory("region", b"handle", 0, 16),
    "trace_settings": Client.get_trace_settings,
    "statistics": lambda client: client.get_inference_statistics("digits"),
    "version_statistics": lambda client: client.get_inference_statistics("digits", "1"),
    "all_statistics": Client.get_inference_statistics,
}


def call(name: str, client: Any) -> Any:
    """Make one call; return what it returned."""
    try:
        return CALLS[name](client)
    except InferenceServerException as error:
        return {"error": error.message(), "status": error.status()}


with Client(ADDRESS, concurrency=8) as connected:
    json.dump({name: call(name, connected) for name in CALLS}, sys.stdout)
