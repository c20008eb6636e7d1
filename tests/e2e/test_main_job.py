"""The main job, on both brokers: release, install everywhere, update in stages, roll back by command."""

from __future__ import annotations

import pytest

from tests.support.fleet import MODEL, Fleet
from tests.support.thoroughness import brokers
from tests.support.waiting import eventually

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]  # many starts, slow on a busy machine


@pytest.mark.parametrize("fleet", brokers("mosquitto"), indirect=True)
def test_a_version_goes_out_is_replaced_in_stages_and_comes_back(fleet: Fleet) -> None:
    first = fleet.release(estimator="logistic", hyperparameters={"training_share": 0.3})
    rollout = fleet.wait_for_status(fleet.roll_out(first, "all"), "SUCCEEDED")
    assert {part["state"] for part in fleet.parts(rollout)} == {"SUCCEEDED"}
    fleet.wait_for_version(first)

    second = fleet.release(estimator="mlp")
    rollout = fleet.wait_for_status(fleet.roll_out(second, 1, "all"), "SUCCEEDED")
    assert [stage["verdict"] for stage in rollout["stages"]] == ["PASS", "PASS"]
    assert [part["previous_version"] for part in fleet.parts(rollout)] == [first] * 3
    fleet.wait_for_version(second)

    fleet.hub.muster("rollback", MODEL, "--to", str(first), "--reason", "a test")
    fleet.wait_for_version(first)
    newest = fleet.hub.client.get("/rollouts")["items"][0]
    assert (newest["kind"], newest["status"], newest["version"]) == ("rollback", "SUCCEEDED", first)

    fleet.stop_cameras()
    answered = fleet.answered_predictions()
    assert answered > 0
    eventually(lambda: fleet.counted_predictions() >= answered, "every answer was counted")
    assert fleet.counted_predictions() == answered
    totals = fleet.hub.client.get("/fleet/totals")["items"]
    assert {row["version"] for row in totals} == {first, second}

    for by in ("all", "device"):  # the fleet's sums and those of its devices say the same
        asked = {"model": MODEL, "metric": ["predictions", "ks"], "by": by, "resolution": "whole"}
        rows = fleet.hub.client.get("/fleet/query", **asked)["items"]
        assert sum(row["predictions"] for row in rows) == answered
        assert {row["version"] for row in rows} == {first, second}
        assert all(0.0 < row["ks"] < 1.0 for row in rows)
    sides = {"left": f"version={first}", "right": f"version={second}"}
    compared = fleet.hub.client.get("/fleet/compare", model=MODEL, **sides)["items"]
    assert sum(compared[0][f"{side}_samples"] for side in sides) == answered


@pytest.mark.parametrize("fleet", brokers("mosquitto"), indirect=True)
def test_a_first_version_that_fails_its_gate_is_removed_again(fleet: Fleet) -> None:
    bad = fleet.release(estimator="logistic", hyperparameters={"training_share": 0.3})
    for camera in fleet.cameras.values():
        camera.is_dirty = True
    bake = {"minimum_bake_s": 0, "maximum_bake_s": 60}
    plan = {
        "stages": [{"devices": 1, **bake}, {"devices": "all", **bake}],
        "gate": {"metrics": [{"metric": "label_errors", "margin": 0.1, "limit": 0.01}]},
    }
    number = fleet.hub.client.post("/rollouts", {"model": MODEL, "version": bad, "plan": plan})["number"]
    fleet.hub.client.post(f"/rollouts/{number}/start")
    rollout = fleet.wait_for_status(number, "ROLLED_BACK")
    assert rollout["cause"]["code"] == "gate_failed"
    canaries = [part for part in fleet.parts(rollout) if part["stage"] == 1]
    assert [part["restore_state"] for part in canaries] == ["REMOVED"]
    assert {part["state"] for part in fleet.parts(rollout) if part["stage"] == 2} == {"CANCELED"}
    fleet.wait_for_version(None)


@pytest.mark.parametrize("fleet", brokers("embedded"), indirect=True)
def test_a_device_that_could_not_install_its_first_version_is_not_waited_for(fleet: Fleet) -> None:
    first = fleet.release(estimator="logistic", hyperparameters={"training_share": 0.3})
    device = fleet.devices["cam-0"]
    device.stop()
    settings = device.state / "agent.toml"
    settings.write_text(
        settings.read_text().replace("reserve_free_bytes = 0", f"reserve_free_bytes = {2**49}")
    )
    device.start()
    rollout = fleet.wait_for_status(fleet.roll_out(first, "all"), "ROLLED_BACK")
    assert rollout["cause"]["code"] == "installs_failed"
    part = next(part for part in fleet.parts(rollout) if part["device_id"] == "cam-0")
    assert (part["state"], part["cause"]["code"], part["restore_state"]) == ("FAILED", "no_space", "REMOVED")
    fleet.wait_for_version(None)
