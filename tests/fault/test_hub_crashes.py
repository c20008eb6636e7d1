"""The hub is killed, its broker is killed, its disk rots: rollouts go on and every answer counts once."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import Fleet
from tests.support.thoroughness import ALL, brokers
from tests.support.waiting import eventually

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]  # many starts, slow on a busy machine


def _is_at(fleet: Fleet, number: int, reached: Callable[[dict[str, Any]], bool]) -> bool:
    return reached(fleet.rollout(number))


@pytest.mark.parametrize("fleet", brokers("mosquitto"), indirect=True)
def test_a_hub_that_is_killed_again_and_again_continues_the_rollout(fleet: Fleet) -> None:
    first = fleet.release(estimator="logistic", hyperparameters={"training_share": 0.3})
    fleet.wait_for_status(fleet.roll_out(first, "all"), "SUCCEEDED")
    second = fleet.release(estimator="mlp")
    number = fleet.roll_out(second, 1, 2, "all")
    moments: list[Callable[[dict[str, Any]], bool]] = [
        lambda rollout: rollout["stage"] >= 1,
        lambda rollout: rollout["counts"].get("SUCCEEDED", 0) >= 1,
        lambda rollout: rollout["stage"] >= 2,
        lambda rollout: rollout["counts"].get("SUCCEEDED", 0) >= 2,
        lambda rollout: rollout["stage"] >= 3,
    ]
    for reached in moments if ALL else moments[1::2]:
        eventually(partial(_is_at, fleet, number, reached), "the moment to kill", timeout_s=60)
        fleet.hub.kill()
        fleet.hub.start()
    rollout = fleet.wait_for_status(number, "SUCCEEDED")
    assert {part["state"] for part in fleet.parts(rollout)} == {"SUCCEEDED"}
    fleet.wait_for_version(second)

    fleet.stop_cameras()
    answered = fleet.answered_predictions()
    eventually(lambda: fleet.counted_predictions() >= answered, "every answer was counted", timeout_s=60)
    assert fleet.counted_predictions() == answered


@pytest.mark.parametrize("fleet", brokers("mosquitto"), indirect=True)
def test_a_broker_that_is_killed_is_started_again_and_everybody_comes_back(fleet: Fleet) -> None:
    eventually(lambda: fleet.hub.client.get("/fleet/health")["online"] == 3, "all are online")
    _kill_children(fleet.hub.pid)
    first = fleet.release(estimator="logistic", hyperparameters={"training_share": 0.3})
    fleet.wait_for_status(fleet.roll_out(first, "all"), "SUCCEEDED")
    fleet.wait_for_version(first)


@pytest.mark.parametrize("fleet", brokers("embedded"), indirect=True)
def test_a_blob_that_rots_on_the_hub_is_not_delivered(fleet: Fleet) -> None:
    first = fleet.release(estimator="logistic", hyperparameters={"training_share": 0.3})
    for blob in (fleet.hub.home / "blobs").rglob("*"):
        if blob.is_file():
            data = bytearray(blob.read_bytes())
            data[len(data) // 2] ^= 0x01
            blob.write_bytes(data)
    before = fleet.hub.client.get("/rollouts")["items"]
    refused = fleet.hub.muster("rollout", "create", "digits", str(first), check=False)
    assert re.match(r"error: .*damaged", refused), refused
    assert fleet.hub.client.get("/rollouts")["items"] == before


def _kill_children(pid: int) -> None:
    """Kill the processes that the hub has started: its broker, on whatever leash."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            parent = re.search(r"^PPid:\s+(\d+)", status.read_text(), re.MULTILINE)
            parents[int(status.parent.name)] = int(parent[1]) if parent else 0
    children = [child for child, parent in parents.items() if parent == pid]
    assert children, "the hub has no child"
    for child in [*children, *(grandchild for grandchild, parent in parents.items() if parent in children)]:
        os.kill(child, signal.SIGKILL)
