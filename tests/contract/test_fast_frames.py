"""The framing of the fast path, byte for byte, from both sides: vectors that other languages test with."""

from __future__ import annotations

import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.client import Answer
from agent.client.link import FastLink
from agent.client.session import Session
from agent.serving.fast_frames import (
    HEADER,
    Described,
    Header,
    Kind,
    Place,
    pack_head,
    unpack_head,
    unpack_header,
)
from agent.serving.fast_plan import plan_request
from agent.serving.fast_regions import Regions
from agent.telemetry.reception import pack_window
from fleet.protocol.manifest import Signature, Tensor
from fleet.protocol.records import TelemetryWindow

VECTORS = Path(__file__).parents[1] / "vectors" / "fast_frames.json"
CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in msgspec.json.decode(VECTORS.read_bytes())["cases"]
}
SIGNATURE = Signature(
    inputs=(Tensor("city", "str", (-1, 1)), Tensor("known", "bool", (-1, 1))),
    outputs=(Tensor("probabilities", "float32", (-1, 2)), Tensor("label", "str", (-1,))),
)


def frame(name: str) -> bytes:
    return bytes.fromhex(CASES[name]["bytes"])


def tensors(case: dict[str, Any]) -> tuple[Described, ...]:
    return tuple(
        Described(**{**each, "shape": tuple(each["shape"]), "place": Place(each["place"])})
        for each in case["tensors"]
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_frames_are_written_and_read_as_the_vectors_say(case: dict[str, Any]) -> None:
    header, data = Header(**case["header"]), bytes.fromhex(case["bytes"])
    head_end = HEADER.size + header.head_bytes
    assert header.pack() + pack_head(tensors(case)) + bytes.fromhex(case["data"]) == data
    assert unpack_header(data) == header
    assert unpack_head(data[HEADER.size : head_end]) == tensors(case)
    assert data[head_end:].hex() == case["data"]
    assert len(data) == head_end + header.data_bytes


def test_the_agent_reads_a_request_as_the_vectors_say() -> None:
    case = CASES["infer text and a flag of a version"]
    data = bytearray(frame(case["name"]))
    header = unpack_header(data)
    start = HEADER.size + header.head_bytes
    plan = plan_request(
        bytes(data[HEADER.size : start]), header.data_bytes, SIGNATURE, Regions(0, are_trusted=False)
    )
    inputs = plan.read(data, start)
    assert inputs["city"].tolist() == [["oslo"], ["Århus"]]
    assert inputs["known"].tolist() == [[True], [False]]
    label = np.array(["a", "b"], dtype=object)
    head, parts, size_bytes = plan.write({"probabilities": np.zeros((2, 2)), "label": label})
    assert unpack_head(head) == (Described("label", "str", (2,), Place.DATA, 0, 0, 10),)
    assert (b"".join(parts), size_bytes) == (b"\1\0\0\0a\1\0\0\0b", 10)


def test_the_client_speaks_as_the_vectors_say() -> None:
    """Against a peer that only knows the vectors."""
    heard: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/s")
        listener.listen(1)

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                for asked, answered in (("open", "opened"), ("infer one tensor", "answer")):
                    heard.append(peer.recv(len(frame(asked)), socket.MSG_WAITALL))
                    peer.sendall(frame(answered))

        answering = threading.Thread(target=answer)
        answering.start()
        link = FastLink(Path(folder) / "s", 10.0)
        pixels = np.array([[0.5, -1.0, 2.0, 0.25]], dtype=np.float32)
        got: Answer = Session(link, {}).infer("digits", {"pixels": pixels}, 0, {})
        link.close()
        answering.join()
    assert heard == [frame("open"), frame("infer one tensor")]
    assert (got.version, got.prediction_id) == (3, 2**64 - 1)
    assert got.outputs["probabilities"].tolist() == [[0.25, 0.5, 0.25]]


def test_a_window_is_handed_over_as_the_vectors_say() -> None:
    window = TelemetryWindow(
        1000.0, 1060.0, "digits", 3, "ab" * 32, "onnx-fp32", predictions=2, labelled=1, correct=1
    )
    assert pack_window(bytes(range(16)), window).hex() == CASES["window"]["data"]


def test_kinds_keep_their_numbers() -> None:
    assert {kind.name: kind.value for kind in Kind} == {
        "OPEN": 1,
        "INFER": 2,
        "FEEDBACK": 3,
        "SHARE": 4,
        "UNSHARE": 5,
        "WINDOW": 6,
    }
