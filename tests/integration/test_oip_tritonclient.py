"""``tritonclient`` against a real ``muster-agent`` with assigned models; `triton_child` makes the calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fleet.protocol.deployment import DeploymentState
from tests.support.agent_bundles import build, build_tabular
from tests.support.agent_device import SAMPLE, Device
from tests.support.agent_fixtures import mosquitto_fixture  # noqa: F401 - pytest finds fixtures by name
from tests.support.agent_models import CLASSES, PIXELS
from tests.support.agent_peer import Peer
from tests.support.brokers import RunningBroker
from tests.support.ports import LOOPBACK, ReservedPort
from tests.support.triton import calls_of_tritonclient


@pytest.fixture(name="port", scope="module")
def port_fixture() -> Iterator[int]:
    reserved = ReservedPort()
    yield reserved.number


@pytest.fixture(name="device", scope="module")
def device_fixture(
    broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory, port: int
) -> Iterator[Device]:
    peer = Peer(broker)
    device = Device(peer, tmp_path_factory.mktemp("device"), "triton", tcp_port=port, shared_memory=True)
    try:
        bundles = build(1), build_tabular()
        peer.release(*bundles)
        peer.assign(device.id, (bundles[0], "d-1"), (bundles[1], "d-2"))
        device.start()
        for deployment in ("d-1", "d-2"):
            peer.wait_report(deployment, DeploymentState.SUCCEEDED)
        yield device
    finally:
        device.close()
        peer.close()


@pytest.fixture(name="calls", scope="module")
def calls_fixture(device: Device, port: int) -> dict[str, Any]:
    assert device.is_running()
    return calls_of_tritonclient(f"{LOOPBACK}:{port}")


def expected(scale: float = 1.0) -> list[float]:
    weights = np.random.default_rng(1).normal(size=(PIXELS, CLASSES)).astype(np.float32)
    logits = np.exp(np.float32(scale) * np.array(SAMPLE, dtype=np.float32) @ weights)
    values: list[float] = (logits / logits.sum()).tolist()
    return values


def test_health_is_told(calls: dict[str, Any]) -> None:
    yes = ("is_server_live", "is_server_ready", "is_model_ready", "is_version_ready")
    assert [calls[name] for name in yes] == [True] * 4
    assert [calls[name] for name in ("is_other_version_ready", "is_other_model_ready")] == [False] * 2


def test_the_documents_are_what_the_client_knows(calls: dict[str, Any]) -> None:
    assert calls["server_metadata"]["name"] == "muster-agent"
    assert "binary_tensor_data" in calls["server_metadata"]["extensions"]
    metadata = calls["model_metadata"]
    assert metadata == calls["version_metadata"]
    assert metadata["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 4]}]
    config = calls["model_config"]
    assert [tensor["data_type"] for tensor in config["input"]] == ["TYPE_FP32", "TYPE_STRING"]
    index = {entry["name"]: (entry["version"], entry["state"]) for entry in calls["repository_index"]}
    assert index == {"digits": ("1", "READY"), "visits": ("1", "READY")}


@pytest.mark.parametrize(
    "call",
    [
        "json_in_json_out",
        "json_in_bytes_out",
        "bytes_in_json_out",
        "bytes_in_bytes_out",
        "defaults",
        "version",
        "id_and_parameters",
        "gzip_bytes",
        "deflate_bytes",
        "gzip_json",
        "packed_answer",
        "by_parts",
    ],
)
def test_every_way_to_ask_gives_the_same_predictions(calls: dict[str, Any], call: str) -> None:
    assert "error" not in calls[call], calls[call]
    document = calls[call]["document"]
    assert (document["model_name"], document["model_version"]) == ("digits", "1")
    assert len(document["parameters"]["prediction_id"]) == 16
    array = calls[call]["arrays"]["probabilities"]
    assert (array["shape"], array["dtype"]) == ([1, 3], "float32")
    assert array["data"] == pytest.approx(expected(), abs=1e-6)
    as_bytes = "parameters" in document["outputs"][0]
    assert as_bytes == (not call.endswith("json_out"))


def test_an_id_comes_back(calls: dict[str, Any]) -> None:
    assert calls["id_and_parameters"]["document"]["id"] == "seventeen"
    assert "id" not in calls["defaults"]["document"]


def test_text_goes_in_and_comes_out_either_way(calls: dict[str, Any]) -> None:
    arrays = calls["text_as_bytes"]["arrays"]
    assert arrays == calls["text_as_json"]["arrays"]
    assert (arrays["label"]["shape"], arrays["label"]["dtype"]) == ([2], "object")
    scores = np.reshape(arrays["probabilities"]["data"], (2, 2))
    assert arrays["label"]["data"] == [("no", "yes")[number] for number in scores.argmax(axis=1)]
    assert calls["one_output"]["arrays"] == {"label": arrays["label"]}
    assert len(calls["one_output"]["document"]["outputs"]) == 1


def test_tensors_go_through_shared_memory(calls: dict[str, Any]) -> None:
    got = calls["in_shared_memory"]
    assert "error" not in got, got
    assert got["arrays"] == calls["text_as_bytes"]["arrays"]
    assert ["data" in output for output in got["document"]["outputs"]] == [False, False]
    numbers = {"name": "numbers", "key": got["key"], "offset": 0, "byte_size": 1024}
    text = {"name": "text", "key": got["key"], "offset": 1024, "byte_size": 3072}
    assert got["statuses"] == [[numbers, text], [text], [text], []]
    assert "system_shared_memory" in calls["server_metadata"]["extensions"]


def test_requests_made_at_once_are_each_answered(calls: dict[str, Any]) -> None:
    for scale, array in enumerate(calls["at_once"], start=1):
        assert array["data"] == pytest.approx(expected(scale), abs=1e-5)
    assert len(calls["at_once"]) == 20


def test_the_client_for_asyncio_works_too(calls: dict[str, Any]) -> None:
    got = calls["in_asyncio"]
    assert (got["live"], got["ready"], len(got["index"])) == (True, True, 2)
    assert [array["data"] for array in got["answers"]] == [pytest.approx(expected(), abs=1e-6)] * 5


@pytest.mark.parametrize(
    ("call", "status", "words"),
    [
        ("other_version_metadata", "404", "version 1 does"),
        ("other_model_config", "404", "nobody"),
        ("load_model", "403", "hub decides"),
        ("unload_model", "403", "hub decides"),
        ("wrong_model", "404", "nobody"),
        ("wrong_version", "404", "version 1 does"),
        ("wrong_name", "400", "takes the inputs pixels; other came"),
        ("wrong_shape", "400", "[-1, 4], not [1, 5]"),
        ("wrong_rank", "400", "[-1, 4], not [4]"),
        ("wrong_datatype", "400", "FP32, not 'FP64'"),
        ("wrong_size", "400", "takes 32 bytes; 16 came"),
        ("wrong_output", "400", "gives the outputs probabilities"),
        ("missing_input", "400", "takes the inputs city, numbers; numbers came"),
        ("not_finite", "400", "not finite"),
        ("unknown_region", "404", "'region'"),
        ("unknown_memory", "404", "muster-test-nobody"),
        ("cuda_memory", "404", "cudasharedmemory"),
        ("trace_settings", "404", "trace"),
    ],
)
def test_what_is_wrong_is_the_clients_exception(
    calls: dict[str, Any], call: str, status: str, words: str
) -> None:
    assert calls[call]["status"] == status
    assert words in calls[call]["error"]


def test_statistics_count_what_this_client_asked(calls: dict[str, Any]) -> None:
    (entry,) = calls["statistics"]["model_stats"]
    assert calls["version_statistics"]["model_stats"] == [entry]
    assert (entry["name"], entry["version"]) == ("digits", "1")
    answered = 12 + 20 + 5  # one of each way to ask, those at once, those of the client for asyncio
    assert (entry["inference_count"], entry["execution_count"]) == (answered, answered)
    assert entry["inference_stats"]["success"]["count"] == answered
    assert entry["inference_stats"]["fail"]["count"] == 8
    assert [each["name"] for each in calls["all_statistics"]["model_stats"]] == ["digits", "visits"]


def test_the_agent_serves_on_afterwards(calls: dict[str, Any], device: Device) -> None:
    assert len(calls) > 40
    assert device.is_running()
    assert device.infer(SAMPLE).status == 200
