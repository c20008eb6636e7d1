"""What healthy means."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.health import (
    DeviceFacts,
    HealthPolicy,
    HealthStatus,
    ModelOnDevice,
    device_health,
    fleet_health,
    model_health,
)
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause

NOW_S = 1000.0
POLICY = HealthPolicy(silence_limit_s=90.0)
GOOD = ModelOnDevice("digits", 2, 2, DeploymentState.SUCCEEDED, predictions=1000, errors=1)


def device(
    *models: ModelOnDevice,
    device_id: str = "cam-1",
    connected: bool = True,
    last_seen_s: float | None = NOW_S - 5.0,
) -> DeviceFacts:
    return DeviceFacts(device_id, connected, last_seen_s, models)


def test_a_device_that_does_what_it_should_is_healthy() -> None:
    health = device_health(device(GOOD), NOW_S, POLICY)
    assert (health.status, health.reasons) == (HealthStatus.HEALTHY, ())
    assert device_health(device(), NOW_S, POLICY).status is HealthStatus.HEALTHY


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (device(GOOD, connected=False), "not connected"),
        (device(GOOD, last_seen_s=None), "not heard of yet"),
        (device(GOOD, last_seen_s=NOW_S - 91.0), "not heard of for more than 90 s"),
    ],
)
def test_a_device_that_is_not_heard_of_is_offline(facts: DeviceFacts, said: str) -> None:
    health = device_health(facts, NOW_S, POLICY)
    assert (health.status, health.reasons) == (HealthStatus.OFFLINE, (said,))


@pytest.mark.parametrize(
    ("model", "status", "said"),
    [
        (
            ModelOnDevice("digits", 1, 1, DeploymentState.FAILED, Cause("no_space", "No space.")),
            HealthStatus.UNHEALTHY,
            "digits: last deployment FAILED: No space.",
        ),
        (
            ModelOnDevice("digits", 2, 1, DeploymentState.DOWNLOADING),
            HealthStatus.UPDATING,
            "digits: runs version 1, version 2 is desired",
        ),
        (
            ModelOnDevice("digits", 2, None, DeploymentState.SUCCEEDED),
            HealthStatus.UNHEALTHY,
            "digits: runs no version, version 2 is desired",
        ),
        (
            ModelOnDevice("digits", None, 2),
            HealthStatus.UNHEALTHY,
            "digits: runs version 2, no version is desired",
        ),
        (
            ModelOnDevice("digits", 2, 2, predictions=90, errors=10),
            HealthStatus.UNHEALTHY,
            "digits: 10.0% of requests fail",
        ),
        (
            ModelOnDevice("digits", 2, 2, drifting=("input.mean", "output.class")),
            HealthStatus.UNHEALTHY,
            "digits: drift in input.mean, output.class",
        ),
    ],
)
def test_each_thing_that_is_wrong_is_said(model: ModelOnDevice, status: HealthStatus, said: str) -> None:
    health = device_health(device(model), NOW_S, POLICY)
    assert (health.status, health.reasons) == (status, (said,))


def test_a_quarantined_device_is_unhealthy_until_it_ends() -> None:
    facts = DeviceFacts("cam-1", True, NOW_S, quarantined_until_s=NOW_S + 60.0)
    health = device_health(facts, NOW_S + 60.0, POLICY)
    assert (health.status, health.holds_until_s) == (HealthStatus.UNHEALTHY, NOW_S + 60.0)
    assert device_health(facts, NOW_S + 60.1, POLICY).status is HealthStatus.HEALTHY


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    connected=st.booleans(),
    last_seen_s=st.none() | st.floats(0.0, 2000.0),
    quarantined_until_s=st.none() | st.floats(0.0, 2000.0),
    now_s=st.floats(0.0, 2000.0),
    waited_s=st.floats(0.0, 1000.0),
)
def test_a_judgement_holds_as_long_as_it_says(
    connected: bool,
    last_seen_s: float | None,
    quarantined_until_s: float | None,
    now_s: float,
    waited_s: float,
) -> None:
    facts = DeviceFacts("cam-1", connected, last_seen_s, (GOOD,), quarantined_until_s)
    health = device_health(facts, now_s, POLICY)
    later_s = now_s + waited_s
    if health.holds_until_s is None or later_s <= health.holds_until_s:
        later = device_health(facts, later_s, POLICY)
        assert (later.status, later.reasons) == (health.status, health.reasons)


def test_few_requests_say_nothing_about_errors() -> None:
    few = ModelOnDevice("digits", 2, 2, predictions=0, errors=19)
    assert device_health(device(few), NOW_S, POLICY).status is HealthStatus.HEALTHY
    assert device_health(device(few), NOW_S, HealthPolicy(silence_limit_s=90.0, minimum_requests=19)).reasons


def test_the_worst_decides_and_every_reason_is_kept() -> None:
    updating = ModelOnDevice("digits", 2, 1, DeploymentState.TRIAL)
    drifting = ModelOnDevice("faces", 1, 1, drifting=("input.mean",))
    health = device_health(device(updating, drifting, connected=False), NOW_S, POLICY)
    assert health.status is HealthStatus.OFFLINE
    assert len(health.reasons) == 3
    assert device_health(device(updating, drifting), NOW_S, POLICY).status is HealthStatus.UNHEALTHY


FLEET = [
    device(GOOD, device_id="cam-2"),
    device(
        ModelOnDevice("digits", 2, 1, DeploymentState.TRIAL, predictions=500, errors=499), device_id="cam-1"
    ),
    device(ModelOnDevice("digits", 2, None), device_id="cam-3", connected=False),
    device(ModelOnDevice("faces", 1, 1, drifting=("input.mean",)), device_id="cam-4"),
]


def test_a_model_is_added_up_over_its_devices() -> None:
    health = model_health("digits", FLEET)
    assert health.devices == 3
    assert health.by_version == {"1": 1, "2": 1, "none": 1}
    assert health.as_desired == 1
    assert health.error_share == pytest.approx(500 / 2000)
    assert health.drifting == 0
    assert model_health("faces", FLEET).drifting == 1
    assert model_health("unknown", FLEET).error_share is None


def test_a_fleet_is_counted_by_status_and_model() -> None:
    health = fleet_health(FLEET, NOW_S, POLICY)
    assert health.devices == 4
    assert health.by_status == {
        HealthStatus.HEALTHY: 1,
        HealthStatus.UPDATING: 0,
        HealthStatus.UNHEALTHY: 2,
        HealthStatus.OFFLINE: 1,
    }
    assert [model.model for model in health.models] == ["digits", "faces"]


def test_an_empty_fleet_is_counted_too() -> None:
    health = fleet_health([], NOW_S, POLICY)
    assert health.devices == sum(health.by_status.values()) == 0
