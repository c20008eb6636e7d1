"""Messages against shared byte vectors, and what decoding refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleet.drift.profile import FeatureCounts
from fleet.protocol import messages
from fleet.protocol.chunks import MAX_RANGES
from fleet.protocol.errors import InvalidMessage, MessageTooLarge
from fleet.protocol.messages import (
    MAX_MESSAGE_SIZE_BYTES,
    Ack,
    FileAnswer,
    Hello,
    Presence,
    Record,
    StateReport,
    Want,
    decode,
    encode,
)
from fleet.protocol.records import DeploymentReport, TelemetryWindow

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "messages.json").read_text(encoding="utf-8")
)["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}, {case['name']}")
def test_the_bytes_say_the_fields_and_the_fields_give_the_bytes(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["bytes"])
    message = decode(data, getattr(messages, case["kind"]))
    assert encode(message) == data
    assert json.loads(msgspec.json.encode(message)) == expected(case["fields"])


def expected(value: Any) -> Any:
    """Return the vector's fields as msgspec writes them in JSON: bytes in base64."""
    if isinstance(value, dict) and value.keys() == {"hex"}:
        return json.loads(msgspec.json.encode(bytes.fromhex(value["hex"])))
    if isinstance(value, dict):
        return {key: expected(item) for key, item in value.items()}
    return [expected(item) for item in value] if isinstance(value, list) else value


def test_every_kind_of_message_has_a_vector() -> None:
    kinds = {case["kind"] for case in CASES}
    assert kinds == {
        "Hello", "StateReport", "Presence", "Record", "Ack", "Want", "FetchRequest", "FileAnswer",
    }  # fmt: skip
    bodies = {case["fields"]["body"]["type"] for case in CASES if case["kind"] == "Record"}
    assert bodies == {"deployment", "incident", "window", "diagnostics", "shadow", "measurement"}


def test_fields_that_a_release_does_not_know_are_ignored() -> None:
    data = msgspec.msgpack.encode({"online": True, "battery": 0.5})
    assert decode(data, Presence) == Presence(online=True)


REPORT = {"at_s": 1.0, "deployment_id": "r7-0f", "model": "digits", "version": 2, "state": "STAGED"}
WINDOW = {
    "started_at_s": 1.0,
    "ended_at_s": 2.0,
    "model": "digits",
    "version": 2,
    "manifest_sha256": "a" * 64,
    "variant": "onnx-int8",
}


def record(**body: object) -> dict[str, object]:
    return {"stream": "0" * 16, "number": 1, "body": body}


def test_what_the_refusals_below_start_from_is_accepted() -> None:
    decode(msgspec.msgpack.encode(record(type="deployment", **REPORT)), Record)
    decode(msgspec.msgpack.encode(record(type="window", **WINDOW)), Record)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Presence, {}),
        (Presence, {"online": 1}),
        (Presence, []),
        (Ack, {"stream": "0" * 16, "numbers": [-1]}),
        (Ack, {"stream": "0" * 15, "numbers": []}),
        (Ack, {"stream": "0" * 16 + "\n", "numbers": []}),
        (Ack, {"stream": "0" * 16, "numbers": list(range(1025))}),
        (Want, {"sha256": "A" * 64, "missing": []}),
        (Want, {"sha256": "a" * 64 + "\n", "missing": []}),
        (Want, {"sha256": "a" * 64, "missing": [[0, 1]] * (MAX_RANGES + 1)}),
        (Want, {"sha256": "a" * 64, "missing": [[0]]}),
        (Want, {"sha256": "a" * 64, "missing": [[0, 2**53 + 1]]}),
        (FileAnswer, {"request_id": 1, "size_bytes": -1}),
        (Hello, {"protocol": 1, "sequence": 1}),
        (StateReport, {"at_s": float("nan"), "sequence": 1, "models": []}),
        (StateReport, {"at_s": float("inf"), "sequence": 1, "models": []}),
        (StateReport, {"at_s": -1.0, "sequence": 1, "models": []}),
        (Record, record(**REPORT)),
        (Record, record(type="gossip", **REPORT)),
        (Record, record(type="deployment", **{**REPORT, "state": "HAPPY"})),
        (Record, record(type="deployment", **{**REPORT, "deployment_id": "r7-0f\n"})),
        (Record, record(type="deployment", **{**REPORT, "model": "#"})),
        (Record, record(type="deployment", **{**REPORT, "cause": {"code": "x"}})),
        (Record, record(type="window", **{**WINDOW, "correct": -1})),
        (Record, record(type="window", **{**WINDOW, "latency": {128: 1}})),
        (Record, record(type="window", **{**WINDOW, "latency": {1: 0}})),
        (Record, record(type="window", **{**WINDOW, "latency": {"1": 1}})),
        (Record, record(type="window", **{**WINDOW, "profile": {"x": {"cells": [0.5]}}})),
        (Record, record(type="window", **{**WINDOW, "manifest_sha256": "a" * 63})),
    ],
)
def test_what_breaks_the_protocol_is_refused(kind: type[msgspec.Struct], fields: object) -> None:
    with pytest.raises(InvalidMessage):
        decode(msgspec.msgpack.encode(fields), kind)


def test_a_message_too_large_is_not_decoded() -> None:
    largest = encode(FileAnswer(1, 1, bytes(MAX_MESSAGE_SIZE_BYTES)))
    with pytest.raises(MessageTooLarge):
        decode(largest, FileAnswer)


@pytest.mark.parametrize("kind", [Hello, Record, Want, FileAnswer, DeploymentReport, TelemetryWindow])
@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\x91" * 200_000, b"\x81\xa1x" * 80_000, b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x81\xa4body" + b"\x91" * 100_000,
    ],
    ids=["empty", "unused", "deep array", "deep map", "huge array", "huge map", "huge bytes", "deep body"],
)  # fmt: skip
def test_bytes_made_to_hurt_are_refused(data: bytes, kind: type[msgspec.Struct]) -> None:
    with pytest.raises(InvalidMessage):
        decode(data, kind)


@pytest.mark.parametrize(
    "changes",
    [
        {"errors": -1},
        {"predictions": 2**60},
        {"latency": {3: -1}},
        {"latency": {500: 1}},
        {"profile": {"output.class": FeatureCounts(cells=[1, -1])}},
        {"profile": {"output.class": FeatureCounts(cells=[1], missing=-1)}},
    ],
)
def test_impossible_counts_are_refused_while_decoding(changes: dict[str, Any]) -> None:
    window = TelemetryWindow(1.0, 2.0, "digits", 1, "ab" * 32, "onnx-fp32")
    body = msgspec.structs.replace(window, **changes)
    with pytest.raises(InvalidMessage):
        decode(encode(Record("0" * 16, 1, body)), Record)
